#include "serve/cors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace bise {
namespace {

constexpr std::string_view kAllMethods = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";
// Headers that a browser may always send.
constexpr std::string_view kSafeHeaders[] = {"Accept", "Accept-Language", "Content-Language", "Content-Type"};

bool contains(const std::vector<std::string>& list, std::string_view value) {
  return std::ranges::find(list, value) != list.end();
}

bool allows_origin(const CorsOptions& options, std::string_view origin) {
  return contains(options.allowed_origins, "*") || contains(options.allowed_origins, origin);
}

bool allows_header(const CorsOptions& options, std::string_view header) {
  const auto same = [header](std::string_view name) { return equal_ignoring_case(name, header); };
  return contains(options.allowed_headers, "*") || std::ranges::any_of(kSafeHeaders, same) ||
         std::ranges::any_of(options.allowed_headers, same);
}

std::string_view trimmed(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

// Whether each name of a comma-separated list is allowed.
bool allows_headers(const CorsOptions& options, std::string_view list) {
  while (!list.empty()) {
    const std::size_t comma = std::min(list.find(','), list.size());
    if (!allows_header(options, trimmed(list.substr(0, comma)))) return false;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return true;
}

// "*" where every origin gets the same answer, else the origin itself.
void set_origin(const CorsOptions& options, std::string_view origin, bool echo, HttpHeaders& headers) {
  if (contains(options.allowed_origins, "*") && !echo) {
    headers.set("access-control-allow-origin", "*");
  } else {
    headers.set("access-control-allow-origin", std::string(origin));
    headers.add("vary", "Origin");
  }
  if (options.allow_credentials) headers.set("access-control-allow-credentials", "true");
}

}  // namespace

bool is_preflight(const HttpRequest& request) {
  return request.method == "OPTIONS" && request.headers.find("Origin") &&
         request.headers.find("Access-Control-Request-Method");
}

HttpResponse preflight_response(const CorsOptions& options, const HttpRequest& request) {
  const std::string_view origin = request.headers.find("Origin").value_or("");
  const std::string_view method = request.headers.find("Access-Control-Request-Method").value_or("");
  const std::string_view wanted = request.headers.find("Access-Control-Request-Headers").value_or("");
  std::vector<std::string_view> refused;
  HttpResponse response;
  response.headers.set("content-type", "text/plain; charset=utf-8");
  if (allows_origin(options, origin)) {
    set_origin(options, origin, options.allow_credentials, response.headers);
  } else {
    refused.push_back("origin");
  }
  const bool any_method = contains(options.allowed_methods, "*");
  if (any_method ? kAllMethods.find(method) == std::string_view::npos
                 : !contains(options.allowed_methods, method))
    refused.push_back("method");
  response.headers.set(
      "access-control-allow-methods",
      any_method ? std::string(kAllMethods) : fmt::format("{}", fmt::join(options.allowed_methods, ", ")));
  response.headers.set("access-control-max-age", "600");
  if (!allows_headers(options, wanted)) refused.push_back("headers");
  if (contains(options.allowed_headers, "*")) {
    if (!wanted.empty()) response.headers.set("access-control-allow-headers", std::string(wanted));
  } else {
    response.headers.set(
        "access-control-allow-headers",
        fmt::format("{}, {}", fmt::join(kSafeHeaders, ", "), fmt::join(options.allowed_headers, ", ")));
  }
  response.status = refused.empty() ? 200 : 400;
  response.body = refused.empty() ? "OK" : fmt::format("Disallowed CORS {}", fmt::join(refused, ", "));
  return response;
}

HttpHeaders cors_headers(const CorsOptions& options, const HttpRequest& request) {
  HttpHeaders headers;
  const auto origin = request.headers.find("Origin");
  if (!origin || !allows_origin(options, *origin)) return headers;
  // With a cookie "*" would be refused by the browser.
  set_origin(options, *origin, options.allow_credentials && request.headers.find("Cookie").has_value(),
             headers);
  return headers;
}

}  // namespace bise
