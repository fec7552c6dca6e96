// What the grammar tests share: byte-sized tokens, and whether a grammar matches a text.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "grammar/grammar.h"
#include "grammar/matcher.h"
#include "grammar/vocabulary.h"

namespace bise {

// Token i is the byte i; token 256 is the stop token.
inline constexpr std::int32_t kByteStop = 256;
inline std::shared_ptr<const TokenTrie> byte_trie() {
  static const std::shared_ptr<const TokenTrie> trie = [] {
    std::vector<TokenText> tokens;
    for (int byte = 0; byte < 256; ++byte) tokens.push_back({std::string(1, static_cast<char>(byte)), false});
    tokens.push_back({"<stop>", true});
    return std::make_shared<const TokenTrie>(tokens, 257);
  }();
  return trie;
}

inline bool mask_bit(std::span<const std::uint32_t> bits, std::int32_t token) {
  return bits[static_cast<std::size_t>(token) / 32] >> (token % 32) & 1;
}

// Whether `text` is complete and right, byte by byte, with the masks saying the same.
inline bool matches(const GrammarPtr& grammar, std::string_view text) {
  Matcher matcher(grammar, byte_trie(), {kByteStop});
  std::vector<std::uint32_t> bits(byte_trie()->mask_words());
  for (const char c : text) {
    const auto token = static_cast<std::int32_t>(static_cast<std::uint8_t>(c));
    matcher.fill_mask(bits);
    const bool allowed = mask_bit(bits, token);
    const bool accepted = matcher.accept(token);
    EXPECT_EQ(allowed, accepted) << "in " << text;
    if (!accepted) return false;
  }
  return matcher.accepts();
}

// The message of the Error that `make` throws; "" when it throws none.
template <class Make>
std::string error_of(const Make& make) {
  try {
    make();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace bise
