// The byte alphabet of GPT-2's tokenizer (openai/gpt-2, encoder.py, bytes_to_unicode): each byte is written
// as one printable character, so that a vocabulary of byte strings can be stored as text.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace bise {

// The bytes that `token` writes, or nothing when some character of it is not in the alphabet.
std::optional<std::string> byte_level_bytes(std::string_view token);

}  // namespace bise
