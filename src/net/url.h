// http and https addresses (RFC 3986), as far as a client needs them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace bise {

struct Url {
  std::string scheme;          // "http" or "https"
  std::string user, password;  // percent-decoded; "" when absent
  std::string host;            // lower case; an IPv6 address without its brackets
  std::uint16_t port = 0;      // the scheme's own when none is written
  std::string path;            // begins with '/', still percent-encoded
  std::string query;           // without '?', still percent-encoded

  bool tls() const { return scheme == "https"; }
  std::string authority() const;            // "host" or "host:port", for the Host field
  std::string target() const;               // "/path?query"
  std::string text() const;                 // the whole, without user and password
  std::string basic_authorization() const;  // "Basic ..." (RFC 7617)
  bool same_origin(const Url& other) const {
    return scheme == other.scheme && host == other.host && port == other.port;
  }
};

// Throws Error saying what is wrong. A fragment is dropped; bytes that an address may not hold (spaces,
// non-ASCII) are percent-encoded, control characters refused.
Url parse_url(std::string_view text);

// A Location field: absolute, or relative to `base` (RFC 3986, section 5.2).
Url resolve_url(const Url& base, std::string_view reference);

// All but letters, digits, "-._~" and the characters of `keep` as %XX: percent_encoded(name, "/") for a path.
std::string percent_encoded(std::string_view text, std::string_view keep = "");
// "a%20b" -> "a b"; a '%' without two hex digits stays as it is.
std::string percent_decoded(std::string_view text);

}  // namespace bise
