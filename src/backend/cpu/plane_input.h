// A row of the input as two planes of int8, the digits of one fixed-point number a value:
//   x = scale * (256 high + low), scale = the largest magnitude of the span of columns / 32639
// which rounds x by at most scale / 2. Rows of int8 codes stay what they are. Include inside a region of
// target("avx512f,avx512bw,avx512dq,avx512vl").
#pragma once

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "backend/cpu/linear_input.h"

namespace bise {
namespace {

// Which columns follow each other in 64 bytes of a plane: those whose codes do.
enum class PlaneOrder {
  kNatural,
  kNibbles64,   // of each 64 columns the even ones, then the odd ones
  kNibbles128,  // of each 128
};

constexpr std::int64_t kPlaneColumns = 128;  // that are split at a time; rows are zero up to a multiple

// 128 columns of a row.
struct Planes {
  __m512i high[2], low[2];
  // Of 32 columns each: the sum of 256 high + low, and the scale, which is the same for a whole span.
  std::int32_t sums[4];
  float scales[4];
};

// The sum of 256 high + low over span s of 128 columns.
template <int kSpan>
std::int32_t sum_of_span(const Planes& planes, int s) {
  std::int32_t sum = 0;
  for (int i = 0; i < kSpan / 32; ++i) sum += planes.sums[s * (kSpan / 32) + i];
  return sum;
}

class PlaneSplitter {
 public:
  PlaneSplitter(const CpuLinearInput& in, std::int64_t row)
      : codes_(in.is_int8() ? reinterpret_cast<const std::int8_t*>(in.row_data(row)) : nullptr),
        values_(in.is_int8() ? nullptr : in.float_row(row)),
        scale_of_codes_(in.scale(row)) {}

  // 128 columns from `column` on.
  template <PlaneOrder kOrder, int kSpan>
  Planes split(std::int64_t column) const {
    Planes planes;
    __m512i words[4];
    for (int first = 0; first < 4; first += kSpan / 32) {
      const int end = first + kSpan / 32;
      const float largest = codes_ ? scale_of_codes_ * kLargest : largest_of(column + 32 * first, kSpan);
      const __m512 inverse = _mm512_set1_ps(kLargest / largest);
      for (int i = first; i < end; ++i) {
        words[i] = fixed_point(column + 32 * i, inverse);
        planes.sums[i] = _mm512_reduce_add_epi32(_mm512_madd_epi16(words[i], _mm512_set1_epi16(1)));
        planes.scales[i] = codes_ ? scale_of_codes_ : largest / kLargest;
      }
    }
    if constexpr (kOrder != PlaneOrder::kNatural) {
      const __m512i even[2] = {pick<0>(words[0], words[1]), pick<0>(words[2], words[3])};
      const __m512i odd[2] = {pick<1>(words[0], words[1]), pick<1>(words[2], words[3])};
      constexpr bool k128 = kOrder == PlaneOrder::kNibbles128;
      words[0] = even[0];
      words[1] = k128 ? even[1] : odd[0];
      words[2] = k128 ? odd[0] : even[1];
      words[3] = odd[1];
    }
    for (int half = 0; half < 2; ++half) {
      const __m512i first = digits(words[2 * half]), second = digits(words[2 * half + 1]);
      const __m512i byte = _mm512_set1_epi16(0xff);
      planes.low[half] =
          in_order(_mm512_packus_epi16(_mm512_and_si512(first, byte), _mm512_and_si512(second, byte)));
      planes.high[half] =
          in_order(_mm512_packs_epi16(_mm512_srai_epi16(first, 8), _mm512_srai_epi16(second, 8)));
    }
    return planes;
  }

 private:
  static constexpr float kLargest = 127 * 256 + 127;

  // Kept from zero, so that the quotient is finite; not a number stays that.
  float largest_of(std::int64_t column, std::int64_t count) const {
    __m512i largest = _mm512_set1_epi32(std::bit_cast<std::int32_t>(0x1p-100f));
    for (std::int64_t c = column; c < column + count; c += 16)
      largest = _mm512_max_epu32(
          largest, _mm512_and_si512(_mm512_load_si512(values_ + c), _mm512_set1_epi32(0x7fffffff)));
    return std::bit_cast<float>(_mm512_reduce_max_epu32(largest));
  }

  // 32 values from a column as 16-bit integers.
  __m512i fixed_point(std::int64_t column, __m512 inverse) const {
    if (codes_) return _mm512_cvtepi8_epi16(_mm256_load_si256((const __m256i*)(codes_ + column)));
    const auto words = [&](std::int64_t c) {
      return _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(values_ + c), inverse)));
    };
    return _mm512_inserti64x4(_mm512_castsi256_si512(words(column)), words(column + 16), 1);
  }
  // Each word as its two signed digits, low and high: adding 128 carries into the high one.
  static __m512i digits(__m512i words) {
    const __m512i half = _mm512_set1_epi16(0x80);
    return _mm512_xor_si512(_mm512_add_epi16(words, half), half);
  }
  // Of 64 words those with an even or odd index.
  template <int kOdd>
  static __m512i pick(__m512i first, __m512i second) {
    return _mm512_permutex2var_epi16(first, _mm512_load_si512(kWords[kOdd].data()), second);
  }
  // Packing takes the words of both vectors a quarter at a time.
  static __m512i in_order(__m512i packed) {
    return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), packed);
  }

  alignas(64) static constexpr std::array<std::array<std::uint16_t, 32>, 2> kWords = [] {
    std::array<std::array<std::uint16_t, 32>, 2> index{};
    for (std::size_t i = 0; i < 32; ++i)
      for (std::size_t odd = 0; odd < 2; ++odd) index[odd][i] = static_cast<std::uint16_t>(2 * i + odd);
    return index;
  }();

  const std::int8_t* codes_;  // one of the two
  const float* values_;       // is given
  float scale_of_codes_;
};

}  // namespace
}  // namespace bise
