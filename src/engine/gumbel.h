// The noise of a draw: argmax(logit + Gumbel noise) draws from softmax(logits) (Gumbel 1954). The noise of a
// token is a hash of (key, token), so it needs no state and no order, and equals on every processor.
#pragma once

#include <cstdint>

namespace bise {

// splitmix64's finalizer (Steele et al. 2014): a bijection that spreads every bit.
inline std::uint64_t spread_bits(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

struct GumbelKey {
  std::uint32_t low = 0, high = 0;
};

// Of the token at `position` of a sequence with `seed`.
inline GumbelKey gumbel_key(std::uint64_t seed, std::int64_t position) {
  const std::uint64_t bits =
      spread_bits(seed + 0x9e3779b97f4a7c15u * (static_cast<std::uint64_t>(position) + 1));
  return {static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(bits >> 32)};
}

// 32 bits of (key, token): the finalizer lowbias32 (Wellons 2018) with half of the key before each of its
// halves. The vector kernels compute the same.
inline std::uint32_t gumbel_bits(GumbelKey key, std::int32_t token) {
  std::uint32_t x = static_cast<std::uint32_t>(token) * 0x9e3779b9u + key.low;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15) ^ key.high) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// -ln(-ln(1 - v)) with v = (bits + 1/2) / 2^32.
double gumbel_noise(std::uint32_t bits);

}  // namespace bise
