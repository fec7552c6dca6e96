// A tile of X^T X in float32, for every instruction set. Include inside its target region.
#pragma once

#include <cstdint>

namespace bise {

// hessian[i][j] += 2 * sum over r of x[r][i] * x[r][j] for i in [first_row, first_row + 4) and j in
// [first_column, first_column + 2 * kWidth), within the upper triangle of [columns, columns]. x is row-major;
// its rows may be read up to the end of the tile.
template <class Simd>
void add_syrk_tile(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t first_row,
                   std::int64_t first_column, std::int64_t columns, float* hessian) {
  constexpr std::int64_t kRows = 4, kSpan = 2 * Simd::kWidth;
  typename Simd::Vec sums[kRows][2];
  for (auto& row : sums) row[0] = row[1] = Simd::zero();
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* values = x + r * stride;
    const auto a = Simd::load(values + first_column), b = Simd::load(values + first_column + Simd::kWidth);
    for (std::int64_t i = 0; i < kRows; ++i) {
      const auto factor = Simd::set(values[first_row + i]);
      sums[i][0] = Simd::fma(a, factor, sums[i][0]);
      sums[i][1] = Simd::fma(b, factor, sums[i][1]);
    }
  }
  for (std::int64_t i = 0; i < kRows && first_row + i < columns; ++i) {
    float tile[kSpan];
    Simd::store(tile, sums[i][0]);
    Simd::store(tile + Simd::kWidth, sums[i][1]);
    float* row = hessian + (first_row + i) * columns;
    for (std::int64_t j = 0; j < kSpan && first_column + j < columns; ++j)
      if (first_column + j >= first_row + i) row[first_column + j] += 2 * tile[j];
  }
}

}  // namespace bise
