#include "grammar/string_formats.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace bise {
namespace {

// Days as many as the month has, the 29th of February in leap years (RFC 3339, appendix C).
std::string date() {
  return "(?:\\d{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)"
         "|02-(?:0[1-9]|1\\d|2[0-8]))"
         "|(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)";
}

std::string time() {
  return "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)";
}

// RFC 3339, appendix A.
std::string duration() {
  const std::string n = "\\d{1,9}";
  const std::string clock = fmt::format("T(?:{0}H(?:{0}M(?:{0}S)?)?|{0}M(?:{0}S)?|{0}S)", n);
  return fmt::format("P(?:{0}W|(?:{0}D|{0}M(?:{0}D)?|{0}Y(?:{0}M(?:{0}D)?)?)(?:{1})?|{1})", n, clock);
}

std::string hostname() {
  const std::string label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
  return fmt::format("{0}(?:\\.{0}){{0,7}}", label);
}

std::string email() {
  const std::string atom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}";
  return fmt::format("{0}(?:\\.{0}){{0,4}}@{1}", atom, hostname());
}

std::string ipv4() {
  const std::string part = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
  return fmt::format("{0}(?:\\.{0}){{3}}", part);
}

// RFC 4291, section 2.2: eight groups, or fewer around one "::"; the last two may be an IPv4 address.
std::string ipv6() {
  const std::string group = "[0-9A-Fa-f]{1,4}";
  const std::string tail = fmt::format("(?:{0}:{0}|{1})", group, ipv4());
  std::string result = fmt::format("(?:(?:{0}:){{6}}{1}", group, tail);
  for (int before = 0; before <= 7; ++before) {
    const std::string head = before == 0 ? "" : fmt::format("{0}(?::{0}){{{1}}}", group, before - 1);
    const int after = 7 - before;  // groups that "::" may leave
    result += "|" + head + "::";
    if (after == 1) result += fmt::format("(?:{0})?", group);
    if (after >= 2) result += fmt::format("(?:(?:{0}:){{0,{1}}}{2}|{0})?", group, after - 2, tail);
  }
  return result + ")";
}

std::string uri_characters(std::string_view extra) {
  return fmt::format("(?:[A-Za-z0-9._~!$&'()*+,;=:@/{}-]|%[0-9A-Fa-f]{{2}})", extra);
}

std::string uri() {
  return fmt::format("[A-Za-z][A-Za-z0-9+.-]{{0,30}}:{0}+(?:\\?{1}*)?(?:#{1}*)?", uri_characters(""),
                     uri_characters("?"));
}

std::string uri_reference() {
  return fmt::format("(?:{0}|{1}*(?:\\?{2}*)?(?:#{2}*)?)", uri(), uri_characters(""), uri_characters("?"));
}

}  // namespace

std::optional<std::string> string_format(std::string_view format) {
  if (format == "date") return date();
  if (format == "time") return time();
  if (format == "date-time") return date() + "T" + time();
  if (format == "duration") return duration();
  if (format == "email") return email();
  if (format == "hostname") return hostname();
  if (format == "ipv4") return ipv4();
  if (format == "ipv6") return ipv6();
  if (format == "uri") return uri();
  if (format == "uri-reference") return uri_reference();
  if (format == "uuid") return "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}";
  if (format == "json-pointer") return "(?:/(?:[^/~]|~[01])*)*";
  constexpr std::string_view kUnsupported[] = {
      "idn-email", "idn-hostname", "iri", "iri-reference", "uri-template", "relative-json-pointer", "regex"};
  if (std::find(std::begin(kUnsupported), std::end(kUnsupported), format) != std::end(kUnsupported))
    throw Error("format '{}' is not supported", format);
  return std::nullopt;
}

}  // namespace bise
