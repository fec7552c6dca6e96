#include "serve/routes.h"

#include <algorithm>
#include <utility>

namespace bise {
namespace {

std::string_view next_segment(std::string_view& path) {
  const std::size_t end = std::min(path.find('/', 1), path.size());
  const std::string_view segment = path.substr(0, end);
  path.remove_prefix(end);
  return segment;
}

bool matches(std::string_view pattern, std::string_view path) {
  while (!pattern.empty() && !path.empty()) {
    const std::string_view wanted = next_segment(pattern), given = next_segment(path);
    const bool any = wanted.starts_with("/{");
    if (any ? given.size() < 2 : wanted != given) return false;
  }
  return pattern.empty() && path.empty();
}

}  // namespace

void Router::add(std::string path, std::vector<std::string> methods,
                 std::function<void(std::shared_ptr<HttpExchange>)> handle) {
  routes_.push_back({std::move(path), std::move(methods), std::move(handle)});
}

Router::Match Router::find(std::string_view method, std::string_view path) const {
  Match match;
  for (const Route& route : routes_) {
    if (!matches(route.path, path)) continue;
    if (std::ranges::find(route.methods, method) != route.methods.end()) return {&route, {}};
    for (const std::string& allowed : route.methods)
      match.allow += (match.allow.empty() ? "" : ", ") + allowed;
  }
  return match;
}

std::string_view Router::handler_name(std::string_view path) const {
  const auto found =
      std::ranges::find_if(routes_, [&](const Route& route) { return matches(route.path, path); });
  return found == routes_.end() ? std::string_view("none") : std::string_view(found->path);
}

}  // namespace bise
