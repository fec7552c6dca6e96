#include "text/byte_level.h"

#include <array>
#include <cstdint>

#include "text/utf8.h"

namespace bise {
namespace {

constexpr int kCharacters = 0x144;  // the alphabet's last character is U+0143

// Printable Latin-1 characters stand for themselves; the other bytes follow from U+0100 on in order.
constexpr std::array<std::int16_t, kCharacters> make_byte_of_character() {
  std::array<std::int16_t, kCharacters> table{};
  table.fill(-1);
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
    table[printable ? byte : next++] = static_cast<std::int16_t>(byte);
  }
  return table;
}

constexpr auto kByteOfCharacter = make_byte_of_character();

}  // namespace

std::optional<std::string> byte_level_bytes(std::string_view token) {
  std::string bytes;
  bytes.reserve(token.size());
  while (!token.empty()) {
    const Utf8Step step = utf8_step(token);
    if (step.status != Utf8Status::kCharacter || step.code >= kCharacters) return std::nullopt;
    const int byte = kByteOfCharacter[step.code];
    if (byte < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(byte));
    token.remove_prefix(step.length);
  }
  return bytes;
}

}  // namespace bise
