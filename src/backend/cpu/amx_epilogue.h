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
};

class AmxEpilogue {
 public:
  // `gated`: where gated products go; null: plain sums.
  AmxEpilogue(const CpuLinearInput& in, const CpuLinearWeight& weight, CpuLinearInput* gated)
      : in_(in), weight_(weight), gated_(gated), integer_(weight.integer()) {}

  // Rows [r, r + kCount) of the products, with their halves in rows[0] and rows[1].
  template <int kCount>
  void finish_rows(const Products& done, std::int64_t r, __m512 (&rows)[2][kCount]) const {
    for (int h = 0; h < 2; ++h) {
      const __mmask16 mask = mask_of(done.unit.count[h]);
      if (!done.first_block)
        for (int i = 0; i < kCount; ++i) {
          const __m512 before = _mm512_maskz_loadu_ps(mask, done.sums.half(r + i, h));
          rows[h][i] = integer_ ? add_integers(before, rows[h][i]) : _mm512_add_ps(before, rows[h][i]);
        }
      if (!done.last_block) continue;
      if (integer_)
        for (int i = 0; i < kCount; ++i) rows[h][i] = _mm512_cvtepi32_ps(_mm512_castps_si512(rows[h][i]));
      if (weight_.row_scales()) {
        const __m512 scales = _mm512_maskz_loadu_ps(mask, weight_.row_scales() + done.unit.row[h]);
        for (int i = 0; i < kCount; ++i) rows[h][i] = _mm512_mul_ps(rows[h][i], scales);
      }
      if (in_.type() != InputType::kNone)
        for (int i = 0; i < kCount; ++i)
          rows[h][i] = _mm512_mul_ps(rows[h][i], _mm512_set1_ps(in_.scale(done.first_row + r + i)));
      if (weight_.bias()) {
        const __m512 bias = _mm512_maskz_loadu_ps(mask, weight_.bias() + done.unit.row[h]);
        for (int i = 0; i < kCount; ++i) rows[h][i] = _mm512_add_ps(rows[h][i], bias);
      }
    }
    if (gated_ && done.last_block) {
      for (int i = 0; i < kCount; ++i)
        store_gated(done, done.first_row + r + i, gate<SimdAvx512>(rows[0][i], rows[1][i]));
      return;
    }
    for (int i = 0; i < kCount; ++i)
      for (int h = 0; h < 2; ++h)
        _mm512_mask_storeu_ps(done.sums.half(r + i, h), mask_of(done.unit.count[h]), rows[h][i]);
  }

  // Rows [4 slice, 4 slice + 4) of the `count` rows whose products lie transposed in C tiles: tile (h, j) of
  // weight half h and token tile j at products + (2 h + j) * 256.
  void finish_slice(const Products& done, const float* products, std::int64_t slice,
                    std::int64_t count) const {
    __m512 rows[2][4];
    for (int h = 0; h < 2; ++h)
      transpose_columns(products + (2 * h + slice / 4) * 256, static_cast<int>(slice % 4), rows[h]);
    const std::int64_t first = 4 * slice, left = std::min<std::int64_t>(4, count - first);
    if (left == 4) return finish_rows<4>(done, first, rows);
    for (std::int64_t i = 0; i < left; ++i) {
      __m512 row[2][1] = {{rows[0][i]}, {rows[1][i]}};
      finish_rows<1>(done, first + i, row);
    }
  }

 private:
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
  const bool integer_;
};

}  // namespace
}  // namespace bise
