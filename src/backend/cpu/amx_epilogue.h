// What becomes of the products of tiles: added to the sums of the blocks before and, after the last block,
// scaled, with bias, and gated where the layer is. Include inside a region of target("avx512f,avx512dq,
// avx512vl,avx512bw,avx512bf16").
#pragma once

#include "backend/cpu/linear_driver.h"
#include "backend/cpu/simd_avx512.h"
#include "backend/cpu/transpose_kernel.h"

namespace bise {
namespace {

inline __mmask16 mask_of(std::int64_t count) {
  return static_cast<__mmask16>((1u << count) - 1u);
}

inline __m512 add_integers(__m512 a, __m512 b) {
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}

// Products of a unit and consecutive rows of the input.
struct Products {
  Unit unit{};
  UnitSums sums{};             // of the first row
  std::int64_t first_row = 0;  // in the input
  bool first_block = false, last_block = false;
  bool plain = false;  // AmxEpilogue::plain, of what goes to finish_slice
};

class AmxEpilogue {
 public:
  // `gated`: where gated products go; null: plain sums.
  AmxEpilogue(const CpuLinearInput& in, const CpuLinearWeight& weight, CpuLinearInput* gated)
      : in_(in),
        weight_(weight),
        gated_(gated),
        integer_(weight.integer()),
        plain_(!weight.integer() && !weight.row_scales() && !weight.bias() && in.type() == InputType::kNone &&
               (!gated || gated->bf16_row(0))) {}

  // Rows [r, r + kCount) of the products, with their halves in first and second. Everything is unrolled: the
  // values shall stay in registers, or the tile unit waits for the stores and loads of their arrays.
  template <int kCount>
  [[gnu::always_inline]] void finish_rows(const Products& done, std::int64_t r, __m512 (&first)[kCount],
                                          __m512 (&second)[kCount]) const {
    finish_half<0>(done, r, first);
    finish_half<1>(done, r, second);
    if (gated_ && done.last_block) {
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i)
        store_gated(done, done.first_row + r + i, gate<SimdAvx512>(first[i], second[i]));
      return;
    }
    store_half<0>(done, r, first);
    store_half<1>(done, r, second);
  }

  // Whether whole units need no more than to be transposed and gated; they are the most, and few instructions
  // keep the tile unit fed.
  bool plain(const Products& done) const {
    const auto& count = done.unit.count;
    return plain_ && done.first_block && done.last_block && count[0] == Unit::kHalf &&
           count[1] == Unit::kHalf;
  }

  // Rows [4 slice, 4 slice + 4) of the `count` rows whose products lie transposed in C tiles: tile (h, j) of
  // weight half h and token tile j at products + (2 h + j) * 256.
  void finish_slice(const Products& done, const float* products, std::int64_t slice,
                    std::int64_t count) const {
    const std::int64_t row = 4 * slice, left = std::min<std::int64_t>(4, count - row);
    if (left < 4) return finish_tail(done, products, slice, left);
    __m512 first[4], second[4];
    transpose_slice(products, slice, first, second);
    done.plain ? finish_plain(done, row, first, second) : finish_rows<4>(done, row, first, second);
  }

 private:
  // finish_rows of what is plain().
  [[gnu::always_inline]] void finish_plain(const Products& done, std::int64_t r, const __m512 (&first)[4],
                                           const __m512 (&second)[4]) const {
    if (gated_) {
      bf16* out = gated_->bf16_row(done.first_row + r) + done.unit.row[0];
      const std::int64_t stride = gated_->row_bytes() / static_cast<std::int64_t>(sizeof(bf16));
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + i * stride),
                            (__m256i)_mm512_cvtneps_pbh(gate<SimdAvx512>(first[i], second[i])));
      return;
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      _mm512_storeu_ps(done.sums.half(r + i, 0), first[i]);
      _mm512_storeu_ps(done.sums.half(r + i, 1), second[i]);
    }
  }

  [[gnu::always_inline]] static void transpose_slice(const float* products, std::int64_t slice,
                                                     __m512 (&first)[4], __m512 (&second)[4]) {
    const float* tiles = products + slice / 4 * 256;
    transpose_columns(tiles, static_cast<int>(slice % 4), first);
    transpose_columns(tiles + 512, static_cast<int>(slice % 4), second);
  }

  // On its own, since an array with a running index lives in memory.
  [[gnu::noinline]] void finish_tail(const Products& done, const float* products, std::int64_t slice,
                                     std::int64_t left) const {
    __m512 first[4], second[4];
    transpose_slice(products, slice, first, second);
    for (std::int64_t i = 0; i < left; ++i) {
      __m512 one[2][1] = {{first[i]}, {second[i]}};
      finish_rows<1>(done, 4 * slice + i, one[0], one[1]);
    }
  }

  template <int kHalf, int kCount>
  [[gnu::always_inline]] void finish_half(const Products& done, std::int64_t r,
                                          __m512 (&rows)[kCount]) const {
    const __mmask16 mask = mask_of(done.unit.count[kHalf]);
    if (!done.first_block) {
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) {
        const __m512 before = _mm512_maskz_loadu_ps(mask, done.sums.half(r + i, kHalf));
        rows[i] = integer_ ? add_integers(before, rows[i]) : _mm512_add_ps(before, rows[i]);
      }
    }
    if (!done.last_block) return;
    if (integer_) {
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) rows[i] = _mm512_cvtepi32_ps(_mm512_castps_si512(rows[i]));
    }
    if (weight_.row_scales()) {
      const __m512 scales = _mm512_maskz_loadu_ps(mask, weight_.row_scales() + done.unit.row[kHalf]);
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) rows[i] = _mm512_mul_ps(rows[i], scales);
    }
    if (in_.type() != InputType::kNone) {
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i)
        rows[i] = _mm512_mul_ps(rows[i], _mm512_set1_ps(in_.scale(done.first_row + r + i)));
    }
    if (weight_.bias()) {
      const __m512 bias = _mm512_maskz_loadu_ps(mask, weight_.bias() + done.unit.row[kHalf]);
#pragma GCC unroll 4
      for (int i = 0; i < kCount; ++i) rows[i] = _mm512_add_ps(rows[i], bias);
    }
  }

  template <int kHalf, int kCount>
  [[gnu::always_inline]] static void store_half(const Products& done, std::int64_t r,
                                                const __m512 (&rows)[kCount]) {
    const __mmask16 mask = mask_of(done.unit.count[kHalf]);
#pragma GCC unroll 4
    for (int i = 0; i < kCount; ++i) _mm512_mask_storeu_ps(done.sums.half(r + i, kHalf), mask, rows[i]);
  }

  void store_gated(const Products& done, std::int64_t row, __m512 value) const {
    const std::int64_t column = done.unit.row[0];
    const __mmask16 mask = mask_of(done.unit.count[0]);
    if (bf16* out = gated_->bf16_row(row))
      _mm256_mask_storeu_epi16(out + column, mask, (__m256i)_mm512_cvtneps_pbh(value));
    else
      _mm512_mask_storeu_ps(gated_->staging(row) + column, mask, value);
  }

  const CpuLinearInput& in_;
  const CpuLinearWeight& weight_;
  CpuLinearInput* gated_;
  const bool integer_, plain_;
};

}  // namespace
}  // namespace bise
