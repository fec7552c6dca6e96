// The few character classes that tokenizer rules name, beside those that patterns test through Regex.
#pragma once

#include <cstddef>
#include <string_view>

namespace bise {

// Unicode's White_Space property.
bool is_white_space(char32_t code);

// Letters, marks, numbers and connector punctuation: \w of Unicode TR18, annex C.
bool is_word_character(char32_t code);

// The last character of well-formed, non-empty `text`, and its length in bytes.
std::size_t last_character_length(std::string_view text);
char32_t last_character(std::string_view text);

}  // namespace bise
