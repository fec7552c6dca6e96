#include "text/unicode.h"

#include "text/regex.h"
#include "text/utf8.h"

namespace bise {

bool is_white_space(char32_t code) {
  return (code >= 0x09 && code <= 0x0D) || code == 0x20 || code == 0x85 || code == 0xA0 || code == 0x1680 ||
         (code >= 0x2000 && code <= 0x200A) || code == 0x2028 || code == 0x2029 || code == 0x202F ||
         code == 0x205F || code == 0x3000;
}

bool is_word_character(char32_t code) {
  static const Regex word("[\\p{L}\\p{M}\\p{N}\\p{Pc}\\x{200C}\\x{200D}]", "the class of word characters");
  std::string character;
  append_utf8(code, character);
  RegexScratch scratch;
  return word.find(character, 0, scratch).has_value();
}

std::size_t last_character_length(std::string_view text) {
  std::size_t length = 1;
  while (length < text.size() && (static_cast<unsigned char>(text[text.size() - length]) & 0xC0) == 0x80)
    ++length;
  return length;
}

char32_t last_character(std::string_view text) {
  return utf8_step(text.substr(text.size() - last_character_length(text))).code;
}

}  // namespace bise
