// Operations on strings that methods and filters share. Results keep the origin of every byte.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "text/jinja/runtime.h"
#include "text/jinja/text.h"

namespace bise::jinja {

// Without the characters of `chars` (spaces when null) at its ends.
Text stripped(const Text& text, const Text* chars, bool left, bool right);
// str.split and rsplit: by spaces when `separator` is null; any number of times when `max_splits` is
// negative.
std::vector<Value> split_text(Runtime& runtime, const Text& text, const Text* separator,
                              std::int64_t max_splits, bool from_right);
// The first `count` occurrences replaced; all when it is negative.
Text replaced(Runtime& runtime, const Text& text, const Text& from, const Text& to, std::int64_t count);

struct LineEnd {
  std::size_t end;   // of the line's text
  std::size_t next;  // where the next line begins
};
// The end of the line that holds `begin`, by str.splitlines' line breaks.
LineEnd find_line_end(std::string_view text, std::size_t begin);

Text upper(Runtime& runtime, const Text& text);
Text lower(Runtime& runtime, const Text& text);
// The first character upper, the others lower.
Text capitalized(Runtime& runtime, const Text& text);
// A letter after a non-letter upper, after a letter lower (str.title).
Text titled(Runtime& runtime, const Text& text);
Text swapped_case(Runtime& runtime, const Text& text);

// & < > " ' as HTML entities.
Text escaped(Runtime& runtime, const Text& text);
// The text of `value` as it may join markup: escaped, unless it is markup itself.
Text as_markup(Runtime& runtime, const Value& value);

enum class Alignment { kLeft, kRight, kCenter };
// Filled up to `width` characters with the one character `fill`. Throws Error when `fill` has another length.
Text padded(Runtime& runtime, const Text& text, std::int64_t width, const Text& fill, Alignment alignment);

}  // namespace bise::jinja
