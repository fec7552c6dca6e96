// How 128 columns of one row of codes become bf16 in four tiles, for each format of one_row_amx.cpp. Gives
// the same values as unpack_amx.cpp. A `Format` has
//   kStepBytes                        bytes of 128 columns
//   kGroups                           scales of 128 columns
//   widen<kTail>(in, bytes, scales, out)
//                                     tile t goes to out + t * kTileBytes; with kTail only `bytes` are read
// Include inside a region of target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vbmi").
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "backend/cpu/linear_weight.h"
#include "backend/cpu/unpack_amx.h"

namespace bise {

// Internal linkage: compiled for the target region it is included in.
namespace {

constexpr std::int64_t kTileBytes = 16 * kTileRowBytes, kStepColumns = 128;

__m512i to_bf16(__m512 low, __m512 high) {
  return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

// Words >> count by a multiplication, since shifts share their one port with the lookups.
__m512i shift_right(__m512i words, int count) {
  return _mm512_mulhi_epu16(words, _mm512_set1_epi16(static_cast<short>(1 << (16 - count))));
}

template <bool kTail>
__m512i load(const std::byte* in, std::int64_t bytes) {
  if (!kTail || bytes >= 64) return _mm512_loadu_si512(in);
  return _mm512_maskz_loadu_epi8(_cvtu64_mask64((1ull << std::max<std::int64_t>(bytes, 0)) - 1), in);
}

// NF4: the even column is the high nibble.
class Nibbles {
 public:
  static constexpr std::int64_t kStepBytes = 64, kGroups = 2;

  explicit Nibbles(const LinearPart& part) : levels_(part.levels.data()) {}

  template <bool kTail>
  [[gnu::always_inline]] void widen(const std::byte* in, std::int64_t bytes, const float* scales,
                                    std::byte* out) const {
    const __m512i low_nibbles = _mm512_set1_epi16(0x0f0f), group_bits = _mm512_load_si512(kGroupBits.data());
    const __m512i words = load<kTail>(in, bytes);
    const auto values_of = [&](int g) __attribute__((always_inline)) {
      return _mm512_mul_ps(_mm512_load_ps(levels_), _mm512_set1_ps(scales[g]));
    };
    const __m512i table = to_bf16(values_of(0), values_of(1));
    __m512i index[4];  // words & low nibbles | group above each
    index[0] = _mm512_ternarylogic_epi32(words, low_nibbles, group_bits, 0xea);
    index[1] = _mm512_ternarylogic_epi32(shift_right(words, 4), low_nibbles, group_bits, 0xea);
    index[2] = shift_right(index[0], 8);
    index[3] = shift_right(index[1], 8);
    for (int i = 0; i < 4; ++i)
      _mm512_store_si512(out + (i ^ 1) * kTileBytes, _mm512_permutexvar_epi16(index[i], table));
  }

 private:
  // The group of each of 32 words of four codes, above both nibbles that stay in place.
  alignas(64) static constexpr auto kGroupBits = [] {
    std::array<std::uint16_t, 32> bits{};
    for (std::size_t word = 0; word < 32; ++word)
      bits[word] = static_cast<std::uint16_t>((word * kGroups / 32) * 0x1010);
    return bits;
  }();

  const float* levels_;
};

// e4m3 codes whose scale is applied to the product.
class Floats {
 public:
  static constexpr std::int64_t kStepBytes = 128, kGroups = 0;

  explicit Floats(const LinearPart&) : table_(e4m3_table()) {}

  template <bool kTail>
  [[gnu::always_inline]] void widen(const std::byte* in, std::int64_t bytes, const float*,
                                    std::byte* out) const {
    const __m512i low0 = _mm512_load_si512(&table_.low[0]), low1 = _mm512_load_si512(&table_.low[64]);
    const __m512i high0 = _mm512_load_si512(&table_.high[0]), high1 = _mm512_load_si512(&table_.high[64]);
    // Quarter-lanes in an order that the interleaving below turns back.
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    const __m512i sign = _mm512_set1_epi8(static_cast<char>(0x80));
    for (int i = 0; i < 2; ++i) {
      const __m512i codes = _mm512_permutexvar_epi64(order, load<kTail>(in + 64 * i, bytes - 64 * i));
      const __m512i low = _mm512_permutex2var_epi8(low0, codes, low1);
      const __m512i magnitude = _mm512_permutex2var_epi8(high0, codes, high1);
      const __m512i high = _mm512_ternarylogic_epi32(magnitude, codes, sign, 0xf8);  // magnitude | sign bit
      _mm512_store_si512(out + 2 * i * kTileBytes, _mm512_unpacklo_epi8(low, high));
      _mm512_store_si512(out + (2 * i + 1) * kTileBytes, _mm512_unpackhi_epi8(low, high));
    }
  }

 private:
  const E4M3Table& table_;
};

}  // namespace

}  // namespace bise
