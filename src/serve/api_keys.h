// The keys of --api-key: which paths they guard, and whether a request carries one. Immutable; any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "net/http_message.h"

namespace bise {

class ApiKeys {
 public:
  // Without keys everything is open. As in vLLM, keys guard the paths under /v1, /v2, /inference and /cohere
  // only; with `guard_all` every path except /health and /ping, which probes without a key ask for.
  ApiKeys(std::vector<std::string> keys, bool guard_all);

  // Whether a request for `path` (the root path removed) may go on. OPTIONS always may.
  bool admits(const HttpRequest& request, std::string_view path) const;

 private:
  bool guards(std::string_view path) const;

  std::vector<std::string> keys_;
  bool guard_all_;
};

// Compares in a time that depends on the length of `given` alone.
bool equal_in_constant_time(std::string_view given, std::string_view secret);

}  // namespace bise
