// Characters of UTF-8 text as Python's str sees them: code points, and their properties. All functions
// expect valid UTF-8 (parse_json and the lexer see to that).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bise::jinja {

// Bytes of the character that starts with `lead`.
constexpr std::size_t character_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

// Number of code points.
std::size_t count_characters(std::string_view text);
// Byte offset of code point number `index`; size() when there are fewer.
std::size_t byte_offset(std::string_view text, std::size_t index);
// The code point at byte `position`.
std::uint32_t character_at(std::string_view text, std::size_t position);
// Appends `character`, which must be a Unicode scalar value.
void append_character(std::string& text, std::uint32_t character);

// str.isspace of one character: Unicode White_Space and the separators 1C..1F.
bool is_space(std::uint32_t character);
// Byte offset of the first character at or after `begin` that is not a space.
std::size_t skip_spaces(std::string_view text, std::size_t begin);
// Byte offset after the last character that is not a space.
std::size_t end_without_spaces(std::string_view text);

enum class Property { kAlphabetic, kNumeric, kDigit, kDecimal, kUpper, kLower };
// str.isalpha, isnumeric, isdigit, isdecimal, isupper, islower of one character, by Unicode general category
// (isdigit and isnumeric by category alone: superscript digits and CJK numerals count as in PCRE2's tables).
bool has_property(std::uint32_t character, Property property);

// Simple (one to one) case mapping: unlike str.upper, 'ß' stays 'ß'.
std::uint32_t to_upper(std::uint32_t character);
std::uint32_t to_lower(std::uint32_t character);

}  // namespace bise::jinja
