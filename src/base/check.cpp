#include "base/check.h"

#include <fmt/format.h>

namespace bise {

void check(bool condition, const char* invariant, std::source_location caller) {
  if (!condition) {
    throw InternalError(
        fmt::format("broken invariant: {} ({}:{})", invariant, caller.file_name(), caller.line()));
  }
}

}  // namespace bise
