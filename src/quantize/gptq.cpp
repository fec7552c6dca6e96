#include "quantize/gptq.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/solver.h"
#include "base/check.h"
#include "quantize/rtn.h"

namespace bise {
namespace {

// Rows are independent given U, so each slice runs the whole column loop by itself. The size is fixed, so
// that the result does not depend on the number of threads, and a slice of 4096 columns fits in cache.
constexpr std::int64_t kSliceRows = 64;

// One slice of rows on its way through the columns.
class Slice {
 public:
  Slice(std::span<const float> weight, std::int64_t rows, std::int64_t first_row, const GptqFactor& factor,
        const QuantParameters& parameters, const Coder& coder, std::span<std::uint8_t> codes)
      : first_row_(first_row),
        rows_(std::min(kSliceRows, rows - first_row)),
        factor_(factor),
        parameters_(parameters),
        coder_(coder),
        codes_(codes),
        weight_(static_cast<std::size_t>(rows_ * factor.columns)) {
    const std::int64_t columns = factor.columns;
    for (std::int64_t row = 0; row < rows_; ++row)
      for (std::int64_t i = 0; i < columns; ++i) {
        const std::int32_t column = factor.order[static_cast<std::size_t>(i)];
        if (!factor.dead[static_cast<std::size_t>(column)])
          weight_[static_cast<std::size_t>(row * columns + i)] =
              weight[static_cast<std::size_t>((first_row + row) * columns + column)];
      }
  }

  double quantize(std::int64_t block_size) {
    const std::int64_t columns = factor_.columns;
    // Columns of one block, transposed so that the rows of the slice are contiguous, and their errors.
    std::vector<float> block(static_cast<std::size_t>(block_size * kSliceRows)), errors(block.size());
    std::vector<float> row_errors(static_cast<std::size_t>(rows_ * block_size));
    double loss = 0;
    for (std::int64_t begin = 0; begin < columns; begin += block_size) {
      const std::int64_t width = std::min(block_size, columns - begin);
      for (std::int64_t row = 0; row < rows_; ++row)
        for (std::int64_t i = 0; i < width; ++i)
          block[static_cast<std::size_t>(i * kSliceRows + row)] =
              weight_[static_cast<std::size_t>(row * columns + begin + i)];
      for (std::int64_t i = 0; i < width; ++i) loss += quantize_column(begin, i, width, block, errors);
      if (begin + width == columns) break;
      for (std::int64_t row = 0; row < rows_; ++row)
        for (std::int64_t i = 0; i < width; ++i)
          row_errors[static_cast<std::size_t>(row * width + i)] =
              errors[static_cast<std::size_t>(i * kSliceRows + row)];
      subtract_product(rows_, columns - begin - width, width, row_errors.data(), width,
                       &factor_.upper[static_cast<std::size_t>(begin * columns + begin + width)], columns,
                       &weight_[static_cast<std::size_t>(begin + width)], columns);
    }
    return loss;
  }

 private:
  // Quantizes column begin + i and spreads its error over the rest of the block. Returns its share of the
  // loss.
  double quantize_column(std::int64_t begin, std::int64_t i, std::int64_t width, std::vector<float>& block,
                         std::vector<float>& errors) {
    const std::int64_t columns = factor_.columns, column = factor_.order[static_cast<std::size_t>(begin + i)];
    const std::int64_t group = column / (columns / parameters_.groups);
    const float* upper = &factor_.upper[static_cast<std::size_t>((begin + i) * columns + begin)];
    float* values = &block[static_cast<std::size_t>(i * kSliceRows)];
    float* error = &errors[static_cast<std::size_t>(i * kSliceRows)];
    double loss = 0;
    for (std::int64_t row = 0; row < rows_; ++row) {
      const std::int64_t index = (first_row_ + row) * parameters_.groups + group;
      const float scale = parameters_.scale[static_cast<std::size_t>(index)];
      const float zero_point = parameters_.zero_point_at(index);
      // The quotient is always float32 here; only the product is rounded to the scale's type.
      const std::uint8_t code = exact_.encode(values[row], scale, zero_point);
      codes_[static_cast<std::size_t>((first_row_ + row) * columns + column)] = code;
      error[row] = (values[row] - coder_.decode(code, scale, zero_point)) / upper[i];
      loss += 0.5 * static_cast<double>(error[row]) * error[row];
    }
    for (std::int64_t j = i + 1; j < width; ++j) {
      float* later = &block[static_cast<std::size_t>(j * kSliceRows)];
      const float factor = upper[j];
      for (std::int64_t row = 0; row < rows_; ++row) later[row] -= error[row] * factor;
    }
    return loss;
  }

  std::int64_t first_row_, rows_;
  const GptqFactor& factor_;
  const QuantParameters& parameters_;
  const Coder& coder_;
  const Coder exact_ = coder_.with_rounding(Rounding::kFloat32);
  std::span<std::uint8_t> codes_;
  std::vector<float> weight_;  // [rows, columns] in the order of quantization
};

void derive_codes_again(std::span<std::uint8_t> codes, std::int64_t columns,
                        const QuantParameters& parameters, const Coder& coder) {
  const std::int64_t width = columns / parameters.groups;
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const auto group = static_cast<std::int64_t>(i) / width;
    const float scale = parameters.scale[static_cast<std::size_t>(group)];
    const float zero_point = parameters.zero_point_at(group);
    codes[i] = coder.encode(coder.decode(codes[i], scale, zero_point), scale, zero_point);
  }
}

}  // namespace

GptqColumns plan_columns(std::span<const float> diagonal, const GptqOptions& options) {
  GptqColumns columns;
  columns.order.resize(diagonal.size());
  std::iota(columns.order.begin(), columns.order.end(), 0);
  if (options.static_activation_order)
    std::stable_sort(columns.order.begin(), columns.order.end(), [&](std::int32_t a, std::int32_t b) {
      return diagonal[static_cast<std::size_t>(a)] > diagonal[static_cast<std::size_t>(b)];
    });
  double trace = 0;
  for (const float value : diagonal) {
    columns.dead.push_back(value == 0);
    trace += value == 0 ? 1.0 : value;
  }
  columns.damping = static_cast<float>(options.dampening_frac * trace / static_cast<double>(diagonal.size()));
  return columns;
}

GptqFactor factor_hessian(std::span<const float> hessian, std::int64_t columns, const GptqOptions& options) {
  check(static_cast<std::int64_t>(hessian.size()) == columns * columns, "a Hessian is square");
  const auto at = [columns](std::int64_t row, std::int64_t column) {
    return static_cast<std::size_t>(std::min(row, column) * columns + std::max(row, column));
  };
  std::vector<float> original;  // the diagonal
  for (std::int64_t i = 0; i < columns; ++i) original.push_back(hessian[at(i, i)]);
  GptqColumns plan = plan_columns(original, options);
  GptqFactor factor;
  factor.columns = columns;
  factor.order = std::move(plan.order);
  factor.dead = std::move(plan.dead);
  factor.upper.resize(hessian.size());
  for (std::int64_t i = 0; i < columns; ++i) {
    const std::int64_t row = factor.order[static_cast<std::size_t>(i)];
    for (std::int64_t j = 0; j < columns; ++j)
      factor.upper[static_cast<std::size_t>(i * columns + j)] =
          hessian[at(row, factor.order[static_cast<std::size_t>(j)])];
    float& diagonal = factor.upper[static_cast<std::size_t>(i * columns + i)];
    diagonal = (diagonal == 0 ? 1.0f : diagonal) + plan.damping;
  }
  if (!invert_to_upper_cholesky(factor.upper, columns)) {
    factor.round_to_nearest = true;
    std::fill(factor.upper.begin(), factor.upper.end(), 0.0f);
    for (std::int64_t i = 0; i < columns; ++i) factor.upper[static_cast<std::size_t>(i * columns + i)] = 1;
  }
  return factor;
}

GptqResult quantize_gptq(std::span<const float> weight, std::int64_t rows, const GptqFactor& factor,
                         const Scheme& scheme, const Arithmetic& arithmetic, const GptqOptions& options,
                         ThreadPool& pool) {
  const std::int64_t columns = factor.columns;
  const QuantParameters parameters = observe_minmax(weight, rows, columns, scheme, arithmetic);
  const Coder coder(scheme, arithmetic);
  std::vector<std::uint8_t> codes(weight.size());
  const std::int64_t slices = (rows + kSliceRows - 1) / kSliceRows;
  std::vector<double> losses(static_cast<std::size_t>(slices));
  pool.parallel_for(slices, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t slice = begin; slice < end; ++slice)
      losses[static_cast<std::size_t>(slice)] =
          Slice(weight, rows, slice * kSliceRows, factor, parameters, coder, codes)
              .quantize(options.block_size);
  });
  if (options.derive_codes_again) derive_codes_again(codes, columns, parameters, coder);
  GptqResult result;
  result.stored = store_codes(codes, rows, columns, scheme, parameters, arithmetic.dtype());
  result.loss = std::accumulate(losses.begin(), losses.end(), 0.0);
  return result;
}

}  // namespace bise
