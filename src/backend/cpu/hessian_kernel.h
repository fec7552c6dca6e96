// A tile of X^T X in float32, for every instruction set. Include inside its target region.
#pragma once

#include <cstdint>

namespace bise {

// hessian[i][j] += 2 * sum over r of x[r][i] * x[r][j] for i in [first_row, first_row + kTileRows) and j in
// [first_column, first_column + kTileVectors * kWidth), within the upper triangle of [columns, columns]. x is
// row-major; what lies beyond `columns` is read, to the end of the tile, and ignored.
template <class Simd>
void add_syrk_tile(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t first_row,
                   std::int64_t first_column, std::int64_t columns, float* hessian) {
  constexpr std::int64_t kRows = Simd::kTileRows, kVectors = Simd::kTileVectors, kWidth = Simd::kWidth;
  typename Simd::Vec sums[kRows][kVectors];
  for (auto& row : sums)
    for (auto& sum : row) sum = Simd::zero();
  for (std::int64_t r = 0; r < rows; ++r) {
    const float* values = x + r * stride;
    typename Simd::Vec right[kVectors];
    for (std::int64_t v = 0; v < kVectors; ++v) right[v] = Simd::load(values + first_column + v * kWidth);
    for (std::int64_t i = 0; i < kRows; ++i) {
      const auto left = Simd::set(values[first_row + i]);
      for (std::int64_t v = 0; v < kVectors; ++v) sums[i][v] = Simd::fma(right[v], left, sums[i][v]);
    }
  }
  for (std::int64_t i = 0; i < kRows && first_row + i < columns; ++i) {
    float tile[kVectors * kWidth];
    for (std::int64_t v = 0; v < kVectors; ++v) Simd::store(tile + v * kWidth, sums[i][v]);
    float* row = hessian + (first_row + i) * columns;
    for (std::int64_t j = 0; j < kVectors * kWidth && first_column + j < columns; ++j)
      if (first_column + j >= first_row + i) row[first_column + j] += 2 * tile[j];
  }
}

}  // namespace bise
