#include "net/url.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <vector>

#include "base/error.h"

namespace bise {
namespace {

constexpr std::size_t kMaxUrl = 64 << 10;

Error bad_url(std::string_view text, const char* why) {
  return Error("not an address: {}", why).expected("http[s]://host[:port]/path").got(std::string(text));
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string base64(std::string_view bytes) {
  constexpr const char* kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      group = group << 8 | (i + j < bytes.size() ? static_cast<unsigned char>(bytes[i + j]) : 0);
    }
    for (std::size_t j = 0; j < 4; ++j) {
      text += i + j > bytes.size() ? '=' : kDigits[group >> (18 - 6 * j) & 63];
    }
  }
  return text;
}

bool is_unreserved(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.' || c == '_' || c == '~';
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](unsigned char c) { return std::tolower(c); });
  return result;
}

// What is encoded already stays.
std::string tidy(std::string_view text) {
  return percent_encoded(text, "%/?:@!$&'()*+,;=[]");
}

void parse_host(std::string_view host, Url& url, std::string_view text) {
  if (host.starts_with('[')) {
    if (!host.ends_with(']')) throw bad_url(text, "a '[' without ']'");
    host = host.substr(1, host.size() - 2);
    const auto fits = [](unsigned char c) { return std::isxdigit(c) || c == ':' || c == '.'; };
    if (host.find(':') == host.npos || !std::ranges::all_of(host, fits)) {
      throw bad_url(text, "the host is no IPv6 address");
    }
  } else if (!std::ranges::all_of(host, is_unreserved)) {
    throw bad_url(text, "the host holds a character that no host name has");
  }
  if (host.empty() || host.size() > 255) throw bad_url(text, "the host has 1 to 255 characters");
  url.host = lower(host);
}

void parse_authority(std::string_view authority, Url& url, std::string_view text) {
  if (const std::size_t at = authority.rfind('@'); at != authority.npos) {
    const std::string_view user = authority.substr(0, at);
    const std::size_t colon = user.find(':');
    url.user = percent_decoded(user.substr(0, colon));
    if (colon != user.npos) url.password = percent_decoded(user.substr(colon + 1));
    authority.remove_prefix(at + 1);
  }
  std::size_t colon = authority.rfind(':');
  if (const std::size_t bracket = authority.rfind(']');
      bracket != authority.npos && colon != authority.npos) {
    if (colon < bracket) colon = authority.npos;
  }
  url.port = url.tls() ? 443 : 80;
  if (colon != authority.npos) {
    const std::string_view port = authority.substr(colon + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), url.port);
    if (!port.empty() && (error != std::errc() || end != port.data() + port.size() || url.port == 0)) {
      throw bad_url(text, "the port is no number from 1 to 65535");
    }
  }
  parse_host(authority.substr(0, colon), url, text);
}

// "/a/./b/../c" -> "/a/c" (RFC 3986, section 5.2.4).
std::string without_dots(std::string_view path) {
  std::vector<std::string_view> kept;
  bool folder = false;  // the path ends in a folder
  for (std::size_t start = 1; start <= path.size();) {
    const std::size_t end = std::min(path.find('/', start), path.size());
    const std::string_view segment = path.substr(start, end - start);
    folder = segment == "." || segment == "..";
    if (segment == "..") {
      if (!kept.empty()) kept.pop_back();
    } else if (segment != ".") {
      kept.push_back(segment);
    }
    start = end + 1;
  }
  std::string result;
  for (const std::string_view segment : kept) result.append("/").append(segment);
  if (folder || result.empty()) result += '/';
  return result;
}

}  // namespace

std::string Url::authority() const {
  std::string text = host.find(':') == host.npos ? host : "[" + host + "]";
  if (port != (tls() ? 443 : 80)) text += fmt::format(":{}", port);
  return text;
}

std::string Url::target() const {
  return query.empty() ? path : path + "?" + query;
}

std::string Url::text() const {
  return scheme + "://" + authority() + target();
}

std::string Url::basic_authorization() const {
  return "Basic " + base64(user + ":" + password);
}

Url parse_url(std::string_view text) {
  if (text.size() > kMaxUrl) throw bad_url(text.substr(0, 100), "it is too long");
  if (std::ranges::any_of(text, [](unsigned char c) { return c < 0x20 || c == 0x7f; })) {
    throw bad_url("", "it holds a control character");
  }
  std::string_view rest = text.substr(0, text.find('#'));
  const std::size_t colon = rest.find("://");
  if (colon == rest.npos) throw bad_url(text, "no scheme");
  Url url;
  url.scheme = lower(rest.substr(0, colon));
  if (url.scheme != "http" && url.scheme != "https") throw bad_url(text, "the scheme is not http or https");
  rest.remove_prefix(colon + 3);
  const std::size_t slash = std::min(rest.find_first_of("/?"), rest.size());
  parse_authority(rest.substr(0, slash), url, text);
  rest.remove_prefix(slash);
  const std::size_t question = rest.find('?');
  url.path = tidy(rest.substr(0, question));
  if (url.path.empty()) url.path = "/";
  if (question != rest.npos) url.query = tidy(rest.substr(question + 1));
  return url;
}

Url resolve_url(const Url& base, std::string_view reference) {
  reference = reference.substr(0, reference.find('#'));
  const std::size_t colon = reference.find(':');
  if (colon != reference.npos && colon < reference.find_first_of("/?")) return parse_url(reference);
  if (reference.starts_with("//")) return parse_url(base.scheme + ":" + std::string(reference));
  std::string place = base.path;
  if (reference.starts_with('?')) {
    place += reference;
  } else if (reference.starts_with('/')) {
    place = reference;
  } else if (!reference.empty()) {
    place = place.substr(0, place.rfind('/') + 1) + std::string(reference);
  } else {
    return base;
  }
  Url url = parse_url(base.scheme + "://" + base.authority() + place);
  url.path = without_dots(url.path);
  return url;
}

std::string percent_encoded(std::string_view text, std::string_view keep) {
  std::string encoded;
  encoded.reserve(text.size());
  for (const char c : text) {
    if (is_unreserved(c) || keep.find(c) != keep.npos) {
      encoded += c;
    } else {
      encoded += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return encoded;
}

std::string percent_decoded(std::string_view text) {
  std::string decoded;
  decoded.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
      decoded += static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
      i += 2;
    } else {
      decoded += text[i];
    }
  }
  return decoded;
}

}  // namespace bise
