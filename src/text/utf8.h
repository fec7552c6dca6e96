// UTF-8, one character at a time. Well-formedness is that of the Unicode standard, table 3-7: no overlong
// forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace bise {

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";  // U+FFFD

enum class Utf8Status {
  kCharacter,   // a whole character
  kIncomplete,  // the text ends inside a character that is well-formed so far
  kInvalid,     // not the start of a character; `length` is the maximal ill-formed part, at least 1
};

struct Utf8Step {
  Utf8Status status;
  std::size_t length;  // bytes
  char32_t code;       // meaningful for kCharacter
};

// What stands at the front of `text`, which must not be empty.
Utf8Step utf8_step(std::string_view text);

// Offset of the first byte that is no part of a well-formed character.
std::optional<std::size_t> find_invalid_utf8(std::string_view text);

// Appends the character `code`, which must be a Unicode scalar value.
void append_utf8(char32_t code, std::string& out);

}  // namespace bise
