// JSON Schema's `format` of strings as regular expressions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace bise {

// The expression for the whole string, or nothing when `format` is none that JSON Schema defines for strings
// (and thus only an annotation). Throws Error for one that it defines and that is not supported.
std::optional<std::string> string_format(std::string_view format);

}  // namespace bise
