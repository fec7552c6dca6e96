#include "text/jinja/characters.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <memory>

#include "base/check.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace bise::jinja {

std::size_t count_characters(std::string_view text) {
  std::size_t count = 0;
  for (char byte : text) count += (static_cast<unsigned char>(byte) & 0xc0) != 0x80;
  return count;
}

std::size_t byte_offset(std::string_view text, std::size_t index) {
  std::size_t position = 0;
  for (; index > 0 && position < text.size(); --index) position += character_length(text[position]);
  return position;
}

std::uint32_t character_at(std::string_view text, std::size_t position) {
  const std::size_t length = character_length(text[position]);
  const auto lead = static_cast<unsigned char>(text[position]);
  if (length == 1) return lead;
  std::uint32_t character = lead & (0x7fu >> length);
  for (std::size_t k = 1; k < length; ++k) {
    character = character << 6 | (static_cast<unsigned char>(text[position + k]) & 0x3fu);
  }
  return character;
}

void append_character(std::string& text, std::uint32_t character) {
  append_utf8(static_cast<char32_t>(character), text);
}

bool is_space(std::uint32_t character) {
  if (character < 0x80) return (character >= 9 && character <= 13) || (character >= 28 && character <= 32);
  return is_white_space(static_cast<char32_t>(character));
}

std::size_t skip_spaces(std::string_view text, std::size_t begin) {
  while (begin < text.size() && is_space(character_at(text, begin))) begin += character_length(text[begin]);
  return begin;
}

std::size_t end_without_spaces(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    std::size_t start = end - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) --start;
    if (!is_space(character_at(text, start))) break;
    end = start;
  }
  return end;
}

namespace {

// PCRE2 carries the Unicode tables; a tiny pattern asks for one property of one character.
using Pattern = std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)>;
using MatchData = std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)>;

Pattern compile(const char* pattern) {
  int error = 0;
  std::size_t at = 0;
  Pattern code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                             PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr),
               pcre2_code_free);
  check(code != nullptr, "a character property pattern compiles");
  return code;
}

std::string utf8(std::uint32_t character) {
  std::string text;
  append_character(text, character);
  return text;
}

// The character that PCRE2's \U or \L makes of `character`.
std::uint32_t substitute_case(const Pattern& any, const char* replacement, std::uint32_t character) {
  const std::string text = utf8(character);
  std::array<PCRE2_UCHAR, 16> output;
  std::size_t length = output.size();
  const int count =
      pcre2_substitute(any.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                       PCRE2_SUBSTITUTE_EXTENDED, nullptr, nullptr, reinterpret_cast<PCRE2_SPTR>(replacement),
                       PCRE2_ZERO_TERMINATED, output.data(), &length);
  if (count != 1) return character;
  return character_at({reinterpret_cast<const char*>(output.data()), length}, 0);
}

}  // namespace

bool has_property(std::uint32_t character, Property property) {
  static const std::array<Pattern, 6> patterns = {compile("\\p{L}"),           compile("\\p{N}"),
                                                  compile("[\\p{Nd}\\p{No}]"), compile("\\p{Nd}"),
                                                  compile("\\p{Lu}"),          compile("\\p{Ll}")};
  const std::string text = utf8(character);
  MatchData match(pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  return pcre2_match(patterns[static_cast<std::size_t>(property)].get(),
                     reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0, match.get(), nullptr) >= 0;
}

std::uint32_t to_upper(std::uint32_t character) {
  if (character == 0xdf) return character;  // 'ß' is two characters in upper case
  if (character < 0x80) return character >= 'a' && character <= 'z' ? character - 32 : character;
  static const Pattern any = compile("(?s).");
  return substitute_case(any, "\\U$0", character);
}

std::uint32_t to_lower(std::uint32_t character) {
  if (character < 0x80) return character >= 'A' && character <= 'Z' ? character + 32 : character;
  static const Pattern any = compile("(?s).");
  return substitute_case(any, "\\L$0", character);
}

}  // namespace bise::jinja
