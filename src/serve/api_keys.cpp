#include "serve/api_keys.h"

#include <utility>

namespace bise {

bool equal_in_constant_time(std::string_view given, std::string_view secret) {
  if (secret.empty()) return false;
  volatile unsigned difference = given.size() == secret.size() ? 0 : 1;
  for (std::size_t i = 0; i < given.size(); ++i)
    difference = difference | static_cast<unsigned char>(given[i] ^ secret[i % secret.size()]);
  return difference == 0;
}

ApiKeys::ApiKeys(std::vector<std::string> keys, bool guard_all)
    : keys_(std::move(keys)), guard_all_(guard_all) {}

bool ApiKeys::guards(std::string_view path) const {
  if (guard_all_) return path != "/health" && path != "/ping";
  for (const std::string_view prefix : {"/v1", "/v2", "/inference", "/cohere"})
    if (path.starts_with(prefix)) return true;
  return false;
}

bool ApiKeys::admits(const HttpRequest& request, std::string_view path) const {
  if (keys_.empty() || request.method == "OPTIONS" || !guards(path)) return true;
  const std::string_view field = request.headers.find("Authorization").value_or("");
  const std::size_t space = field.find(' ');
  if (space == std::string_view::npos || !equal_ignoring_case(field.substr(0, space), "Bearer")) return false;
  const std::string_view given = field.substr(space + 1);
  // All keys are compared, so that the time does not tell which one was nearly right.
  bool admitted = false;
  for (const std::string& key : keys_) admitted |= equal_in_constant_time(given, key);
  return admitted;
}

}  // namespace bise
