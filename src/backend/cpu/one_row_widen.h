// How 128 columns of one row of codes become bf16 in four tiles, for each format of one_row_amx.cpp. Gives
// the same values as unpack_amx.cpp. A `Format` has
//   kStepBytes                        bytes of 128 columns
//   scale_index(first_column, step)   the first scale of step `step` of a block whose columns begin there
//   widen<kTail>(in, bytes, scales, zero_points, out)
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

// Where the scales of a step are. kGroups: groups in 128 columns; 1 also for larger ones, 0: none.
template <int kGroups>
class GroupWalk {
 public:
  explicit GroupWalk(const LinearPart& part)
      : steps_per_group_(kGroups == 1 ? part.group_size / kStepColumns : 1) {}
  std::int64_t scale_index(std::int64_t first_column, std::int64_t step) const {
    if constexpr (kGroups != 1) return step * kGroups;
    const std::int64_t first = first_column / kStepColumns;
    return (first + step) / steps_per_group_ - first / steps_per_group_;
  }

 private:
  std::int64_t steps_per_group_;
};

// 4-bit codes. kHighFirst: the even column is the high nibble.
template <int kGroups, bool kHighFirst, bool kZeroPoints>
class Nibbles : public GroupWalk<kGroups> {
 public:
  static constexpr std::int64_t kStepBytes = 64;

  explicit Nibbles(const LinearPart& part) : GroupWalk<kGroups>(part), levels_(part.levels.data()) {}

  template <bool kTail>
  [[gnu::always_inline]] void widen(const std::byte* in, std::int64_t bytes, const float* scales,
                                    const float* zero_points, std::byte* out) const {
    const __m512i low_nibbles = _mm512_set1_epi16(0x0f0f), group_bits = _mm512_load_si512(kGroupBits.data());
    const __m512i words = load<kTail>(in, bytes);
    const auto values_of = [&](int g) __attribute__((always_inline)) {
      __m512 levels = _mm512_load_ps(levels_);
      if constexpr (kZeroPoints) levels = _mm512_sub_ps(levels, _mm512_set1_ps(zero_points[g]));
      return _mm512_mul_ps(levels, _mm512_set1_ps(scales[g]));
    };
    const __m512 values = values_of(0);
    const __m512i table = to_bf16(values, kGroups == 1 ? values : values_of(1));
    __m512i index[4];
    if constexpr (kGroups == 1) {  // both halves of the table are equal
      index[0] = words;
      for (int i = 1; i < 4; ++i) index[i] = shift_right(words, 4 * i);
    } else {  // words & low nibbles | group above each
      index[0] = _mm512_ternarylogic_epi32(words, low_nibbles, group_bits, 0xea);
      index[1] = _mm512_ternarylogic_epi32(shift_right(words, 4), low_nibbles, group_bits, 0xea);
      index[2] = shift_right(index[0], 8);
      index[3] = shift_right(index[1], 8);
    }
    __m512i second = table;
    if constexpr (kGroups == 4) second = to_bf16(values_of(2), values_of(3));
    for (int i = 0; i < 4; ++i)
      _mm512_store_si512(out + (kHighFirst ? i ^ 1 : i) * kTileBytes,
                         kGroups == 4 ? _mm512_permutex2var_epi16(table, index[i], second)
                                      : _mm512_permutexvar_epi16(index[i], table));
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

// 8-bit codes. kGroups == 0: the scale of the row is applied to the product. kOffset: offset by 128. Scales
// have at most 15 significant bits: then 32896 * scale is exact.
template <int kGroups, bool kOffset>
class Bytes : public GroupWalk<kGroups> {
 public:
  static constexpr std::int64_t kStepBytes = 128;

  explicit Bytes(const LinearPart& part) : GroupWalk<kGroups>(part) {}

  template <bool kTail>
  [[gnu::always_inline]] void widen(const std::byte* in, std::int64_t bytes, const float* scales,
                                    const float*, std::byte* out) const {
    // A code u as the second byte of a float32 of 2^15 makes it 2^15 + u: one lookup instead of two
    // conversions.
    const __m512i base = _mm512_set1_epi32(0x47000000), sign = _mm512_set1_epi8(static_cast<char>(0x80));
    const __m512 offset = _mm512_set1_ps(-32896.0f);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      __m512i codes = load<kTail>(in + 64 * half, bytes - 64 * half);
      if (!kOffset) codes = _mm512_xor_si512(codes, sign);
      __m512 values[4];
#pragma GCC unroll 4
      for (int quarter = 0; quarter < 4; ++quarter) {
        const __m512i index = _mm512_load_si512(kSecondByte.data() + 64 * quarter);
        const __m512 value =
            _mm512_castsi512_ps(_mm512_mask_permutexvar_epi8(base, 0x2222222222222222ull, index, codes));
        if constexpr (kGroups == 0) {
          values[quarter] = _mm512_add_ps(value, offset);
        } else {
          // (2^15 + u) * scale - 32896 * scale: both products are exact before they are added
          const __m512 scale = _mm512_set1_ps(scales[(2 * half + quarter / 2) * kGroups / 4]);
          values[quarter] = _mm512_fmadd_ps(value, scale, _mm512_mul_ps(scale, offset));
        }
      }
      _mm512_store_si512(out + 2 * half * kTileBytes, to_bf16(values[0], values[1]));
      _mm512_store_si512(out + (2 * half + 1) * kTileBytes, to_bf16(values[2], values[3]));
    }
  }

 private:
  // Of quarter q, the second byte of each of 16 words takes code 16 q + word.
  alignas(64) static constexpr auto kSecondByte = [] {
    std::array<std::uint8_t, 256> index{};
    for (std::size_t code = 0; code < 64; ++code)
      index[code / 16 * 64 + code % 16 * 4 + 1] = static_cast<std::uint8_t>(code);
    return index;
  }();
};

// e4m3 codes whose scale is applied to the product.
class Floats : public GroupWalk<0> {
 public:
  static constexpr std::int64_t kStepBytes = 128;

  explicit Floats(const LinearPart& part) : GroupWalk<0>(part), table_(e4m3_table()) {}

  template <bool kTail>
  [[gnu::always_inline]] void widen(const std::byte* in, std::int64_t bytes, const float*, const float*,
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
