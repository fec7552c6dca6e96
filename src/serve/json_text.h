// JSON appended to a string, for answers that are built token by token. Any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace bise {

// `text` in quotes, escaped. It must be valid UTF-8, or the result is not.
void append_json_string(std::string& out, std::string_view text);
// The same without the quotes.
void append_json_escaped(std::string& out, std::string_view text);

void append_number(std::string& out, std::int64_t value);
// The shortest text that reads back as `value`, which must be finite.
void append_number(std::string& out, double value);
// [1,2,3]
void append_array(std::string& out, std::span<const std::int32_t> values);

// `text` with U+FFFD for what is not UTF-8.
std::string valid_utf8(std::string_view text);

}  // namespace bise
