// One row of the input as planes times sixteen rows of codes, on the vector units: a multiplication of 64
// bytes takes 4 columns of each lane together, and the lanes of sixteen rows are added across. Include inside
// a region of target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni").
#pragma once

#include <array>
#include <cstdint>

#include "backend/cpu/plane_input.h"
#include "backend/cpu/plane_scales.h"

namespace bise {
namespace {

// Of 128 columns: planes high 0, high 1, low 0, low 1, 64 bytes each.
constexpr std::int64_t kPlaneRowStep = 256;

inline __m512i add_pairs(__m512i a, __m512i b) {
  return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

// kNibbles: 4-bit codes, in PlaneOrder::kNibbles128; else bytes, in kNatural.
template <bool kNibbles, int kSpan>
class PlaneDot {
 public:
  static constexpr std::int64_t kStepBytes = kNibbles ? 64 : 128;
  static constexpr int kSpans = kPlaneColumns / kSpan;  // of a step

  // `codes`: of sixteen rows, those of column 0. `flip`: xored to each byte to make it unsigned.
  PlaneDot(const std::array<const std::byte*, 16>& codes, std::uint8_t flip)
      : codes_(codes), flip_(_mm512_set1_epi8(static_cast<char>(flip))) {}

  // totals += the block's columns [first, first + count) times the row: `planes`, `sums` (of each span,
  // times the offset of all codes where there are no `offsets`) and `factors` (each span's scale in the row)
  // begin with the block.
  __m512 add_block(std::int64_t first, std::int64_t count, const std::byte* planes, const std::int32_t* sums,
                   const float* factors, const PlaneScales& scales, bool offsets, __m512 totals) const {
    std::int64_t at = first / kPlaneColumns * kStepBytes;
    for (std::int64_t c = 0, span = 0; c < count; c += kPlaneColumns, span += kSpans, at += kStepBytes) {
      __m512i products[kSpans];
      if (count - c >= kPlaneColumns)
        multiply<false>(at, kStepBytes, planes, products);
      else
        multiply<true>(at, ((count - c) * kStepBytes + kPlaneColumns - 1) / kPlaneColumns, planes, products);
      planes += kPlaneRowStep;
#pragma GCC unroll 4
      for (int s = 0; s < kSpans; ++s) {
        __m512i offset = _mm512_set1_epi32(sums[span + s]);
        if (offsets) offset = _mm512_mullo_epi32(offset, _mm512_load_si512(scales.offsets[span + s]));
        const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(products[s], offset));
        const __m512 scaled = _mm512_mul_ps(exact, _mm512_set1_ps(factors[span + s]));
        totals = _mm512_fmadd_ps(scaled, _mm512_load_ps(scales.scales[span + s]), totals);
      }
    }
    return totals;
  }

 private:
  // Vectors of a row's products, of different columns each, and the spans that one has: in whole quarters.
  static constexpr int kVectors = !kNibbles && kSpan < 128 ? 2 : 1, kSpansOfVector = kSpans / kVectors;
  static constexpr std::int64_t kAhead = 512;  // bytes of each stream

  template <bool kTail>
  static __m512i load(const std::byte* from, std::int64_t bytes) {
    if constexpr (!kTail) return _mm512_loadu_si512(from);
    if (bytes <= 0) return _mm512_setzero_si512();
    return _mm512_maskz_loadu_epi8(bytes >= 64 ? ~0ull : (1ull << bytes) - 1, from);
  }

  static __m512i join(__m512i high, __m512i low) {
    return _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
  }

  template <bool kTail>
  [[gnu::always_inline]] void multiply_row(const std::byte* from, std::int64_t bytes, const __m512i (&x)[4],
                                           __m512i (&out)[kVectors]) const {
    const __m512i zero = _mm512_setzero_si512();
    __m512i first, second;
    _mm_prefetch(from + kAhead, _MM_HINT_T0);
    if constexpr (kNibbles) {
      const __m512i nibble = _mm512_set1_epi8(15), both = load<kTail>(from, bytes);
      first = _mm512_and_si512(both, nibble);
      second = _mm512_and_si512(_mm512_srli_epi16(both, 4), nibble);
    } else {
      _mm_prefetch(from + kAhead + 64, _MM_HINT_T0);
      first = _mm512_xor_si512(load<kTail>(from, bytes), flip_);
      second = _mm512_xor_si512(load<kTail>(from + 64, bytes - 64), flip_);
    }
    if constexpr (kVectors == 1) {
      out[0] = join(_mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, first, x[0]), second, x[1]),
                    _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, first, x[2]), second, x[3]));
    } else {
      out[0] = join(_mm512_dpbusd_epi32(zero, first, x[0]), _mm512_dpbusd_epi32(zero, first, x[2]));
      out[1] = join(_mm512_dpbusd_epi32(zero, second, x[1]), _mm512_dpbusd_epi32(zero, second, x[3]));
    }
  }

  // products[s]: of span s, a lane for each row.
  template <bool kTail>
  [[gnu::always_inline]] void multiply(std::int64_t at, std::int64_t bytes, const std::byte* planes,
                                       __m512i (&products)[kSpans]) const {
    __m512i x[4], quads[kVectors][4];
    for (int i = 0; i < 4; ++i) x[i] = _mm512_load_si512(planes + 64 * i);
#pragma GCC unroll 4
    for (std::size_t quad = 0; quad < 4; ++quad) {
      __m512i rows[4][kVectors];
#pragma GCC unroll 4
      for (std::size_t r = 0; r < 4; ++r) multiply_row<kTail>(codes_[4 * quad + r] + at, bytes, x, rows[r]);
        // Quarter-lane l: the sums of quarter l of the four rows' vectors.
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const __m512i first = add_pairs(rows[0][v], rows[1][v]), second = add_pairs(rows[2][v], rows[3][v]);
        quads[v][quad] =
            _mm512_add_epi32(_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second));
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) add_quarters(quads[v], products + v * kSpansOfVector);
  }

  // From quarters of four rows each to spans of sixteen.
  [[gnu::always_inline]] static void add_quarters(const __m512i (&quads)[4], __m512i* spans) {
    const __m512i even01 = _mm512_shuffle_i32x4(quads[0], quads[1], 0x88);  // quarters 0 and 2 of both
    const __m512i odd01 = _mm512_shuffle_i32x4(quads[0], quads[1], 0xdd);
    const __m512i even23 = _mm512_shuffle_i32x4(quads[2], quads[3], 0x88);
    const __m512i odd23 = _mm512_shuffle_i32x4(quads[2], quads[3], 0xdd);
    if constexpr (kSpansOfVector == 4) {
      spans[0] = _mm512_shuffle_i32x4(even01, even23, 0x88);
      spans[1] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
      spans[2] = _mm512_shuffle_i32x4(even01, even23, 0xdd);
      spans[3] = _mm512_shuffle_i32x4(odd01, odd23, 0xdd);
      return;
    }
    const __m512i halves01 = _mm512_add_epi32(even01, odd01), halves23 = _mm512_add_epi32(even23, odd23);
    const __m512i first = _mm512_shuffle_i32x4(halves01, halves23, 0x88);
    const __m512i second = _mm512_shuffle_i32x4(halves01, halves23, 0xdd);
    if constexpr (kSpansOfVector == 2) {
      spans[0] = first;
      spans[1] = second;
    } else {
      spans[0] = _mm512_add_epi32(first, second);
    }
  }

  const std::array<const std::byte*, 16>& codes_;
  const __m512i flip_;
};

}  // namespace
}  // namespace bise
