// From the range of a weight to its scales and zero points (spec/quantization.md sections 3.1 to 3.3).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/gptq_solver.h"
#include "base/thread_pool.h"
#include "quantize/arithmetic.h"
#include "tensor/scheme.h"

namespace bise {

// Scales of a matrix [rows, columns]; the scale of (row, column) is scale[row * groups + group_of(column)].
struct QuantParameters {
  std::int64_t rows = 0;
  std::int64_t groups = 1;              // a row; 1 for a scale per channel
  std::vector<float> scale;             // [rows * groups], representable in the model's type
  std::vector<std::int8_t> zero_point;  // [rows * groups]; empty when symmetric

  float zero_point_at(std::int64_t index) const {
    return zero_point.empty() ? 0.0f : static_cast<float>(zero_point[static_cast<std::size_t>(index)]);
  }
};

// Columns that share a scale: group_size, or all columns with one scale per channel.
std::int64_t columns_per_group(const Scheme& scheme, std::int64_t columns);

// memoryless_minmax of `weight` [rows, columns], strategies channel and group. Throws Error when group_size
// does not divide the columns.
QuantParameters observe_minmax(std::span<const float> weight, std::int64_t rows, std::int64_t columns,
                               const Scheme& scheme, const Arithmetic& arithmetic);

// The same from `ranges` [rows * groups] that a device has found.
QuantParameters parameters_from_ranges(std::span<const ValueRange> ranges, std::int64_t rows,
                                       const Scheme& scheme, const Arithmetic& arithmetic, ThreadPool& pool);

}  // namespace bise
