// Linear layers for the instruction sets without tiles: dot products along the rows of the weight and of the
// input. A kernel template (simd.h); `Codes` is a Simd with, besides:
//   widen_f16, widen_nibbles                 see unpack_floats_kernel.h
//   widen_bytes, Nibbles                     see one_row_floats_kernel.h
//   kRows, kTokens                           how many rows of either factor the inner loop holds in registers
//   dot_codes<R, T>(w, w_stride, x, x_stride, columns, sums)
//                                            R x T sums of products of int8 codes; x is zero beyond `columns`
//
// Weights are widened to float32 a panel at a time (32 rows of kBlockColumns columns). Every output has its
// own accumulator vector, in the order of the columns, and blocks of columns are summed in float32, so that
// the result is the same whichever rows are computed together.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/cpu/linear_driver.h"
#include "backend/cpu/one_row_floats_kernel.h"
#include "backend/cpu/unpack_floats_kernel.h"

namespace bise {

// sums[r * T + t] = dot product of row r of w and row t of x; `columns` is a multiple of the width.
template <class Simd, int R, int T>
void dot_floats(const float* w, std::int64_t w_stride, const float* x, std::int64_t x_stride,
                std::int64_t columns, float* sums) {
  typename Simd::Vec acc[R][T];
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) acc[r][t] = Simd::zero();
  for (std::int64_t k = 0; k < columns; k += Simd::kWidth) {
    typename Simd::Vec weight[R];
    for (int r = 0; r < R; ++r) weight[r] = Simd::load(w + r * w_stride + k);
    for (int t = 0; t < T; ++t) {
      const typename Simd::Vec value = Simd::load(x + t * x_stride + k);
      for (int r = 0; r < R; ++r) acc[r][t] = Simd::fma(weight[r], value, acc[r][t]);
    }
  }
  for (int r = 0; r < R; ++r)
    for (int t = 0; t < T; ++t) sums[r * T + t] = Simd::sum(acc[r][t]);
}

template <class Codes>
class RowProduct {
 public:
  // What a thread does within the layer.
  class Worker {
   public:
    Worker(const RowProduct& product, LinearScratch::Buffers::PerThread& scratch, CpuLinearInput* gated)
        : product_(product), scratch_(scratch), gated_(gated) {}

    // sums (+)= W[unit rows] x[rows] over block `block` of the columns; on the last block scaled, and with
    // bias, and gated where the layer is.
    void multiply_unit(const Unit& unit, std::int64_t block, std::int64_t first, std::int64_t rows,
                       UnitSums sums, const Unit* /*next*/, std::int64_t /*next_block*/) {
      product_.multiply_unit(unit, block, first, rows, sums, scratch_);
      if (!gated_ || block + 1 < product_.blocks()) return;
      for (std::int64_t r = 0; r < rows; ++r)
        gate_columns<Codes>(sums.half(r, 0), sums.half(r, 1), gated_->staging(first + r) + unit.row[0],
                            unit.count[0]);
    }
    void finish() {}

   private:
    const RowProduct& product_;
    LinearScratch::Buffers::PerThread& scratch_;
    CpuLinearInput* gated_;
  };

  RowProduct(const CpuLinearInput& in, const CpuLinearWeight& weight)
      : in_(in),
        weight_(weight),
        integer_(weight.integer()),
        blocks_(integer_ ? 1 : (in.columns() + kBlockColumns - 1) / kBlockColumns) {}

  std::int64_t blocks() const { return blocks_; }
  std::int64_t block_columns() const { return integer_ ? in_.columns() : kBlockColumns; }
  // int8 codes that meet weights with group scales become floats first.
  bool packs() const { return in_.is_int8() && !integer_; }
  void pack(std::int64_t first, std::int64_t rows, int thread, int threads) {
    const UnitRange mine(rows, thread, threads);
    for (std::int64_t r = mine.begin; r < mine.end; ++r)
      widen_codes<Codes>(reinterpret_cast<const std::int8_t*>(in_.row_data(first + r)), padded_columns(),
                         0.0f, 1.0f, packed_row(r));
  }

 private:
  static constexpr std::int64_t kBlockColumns = 512;
  static constexpr int kRows = Codes::kRows, kTokens = Codes::kTokens;

  std::int64_t padded_columns() const {
    return (in_.columns() + CpuLinearInput::kColumnPadding - 1) / CpuLinearInput::kColumnPadding *
           CpuLinearInput::kColumnPadding;
  }
  float* packed_row(std::int64_t row_of_chunk) const {
    return reinterpret_cast<float*>(in_.packing_space()) + row_of_chunk * padded_columns();
  }

  void multiply_unit(const Unit& unit, std::int64_t block, std::int64_t first, std::int64_t rows,
                     UnitSums sums, LinearScratch::Buffers::PerThread& scratch) const {
    for (int h = 0; h < 2; ++h) {
      if (unit.count[h] == 0) continue;
      if (integer_)
        multiply_codes(unit.row[h], unit.count[h], first, rows, sums.half(0, h), sums.stride);
      else
        multiply_floats(unit.row[h], unit.count[h], block, first, rows, sums.half(0, h), sums.stride,
                        scratch);
    }
  }

  void multiply_codes(std::int64_t row, std::int64_t count, std::int64_t first, std::int64_t rows,
                      float* sums, std::int64_t stride) const {
    const auto* x = reinterpret_cast<const std::int8_t*>(in_.row_data(first));
    const auto dot = [&]<int R, int T>(std::int64_t n, std::int64_t t) {
      const LinearPart& part = weight_.part_of(row + n);
      std::int32_t products[R * T];
      Codes::template dot_codes<R, T>(
          reinterpret_cast<const std::int8_t*>(part.row(row + n - part.first_row)), part.row_bytes,
          x + t * in_.row_bytes(), in_.row_bytes(), in_.columns(), products);
      for (int i = 0; i < R * T; ++i)
        sums[(t + i % T) * stride + n + i / T] =
            finished(static_cast<float>(products[i] - Codes::kCodeOffset * in_.code_sum(first + t + i % T)),
                     row + n + i / T, first + t + i % T);
    };
    const LinearPart& part = weight_.part_of(row);
    const bool together = count == Unit::kHalf && row + count <= part.first_row + part.rows();
    for_each_tile(together ? count : 1, rows, dot);
    for (std::int64_t n = 1; n < count && !together; ++n)
      for (std::int64_t t = 0; t < rows; ++t) dot.template operator()<1, 1>(n, t);
  }

  void multiply_floats(std::int64_t row, std::int64_t count, std::int64_t block, std::int64_t first,
                       std::int64_t rows, float* sums, std::int64_t stride,
                       LinearScratch::Buffers::PerThread& scratch) const {
    const std::int64_t begin = block * kBlockColumns,
                       columns = std::min(kBlockColumns, in_.columns() - begin);
    const std::int64_t padded = (columns + 15) / 16 * 16;
    const float* x = packs() ? packed_row(0) : reinterpret_cast<const float*>(in_.row_data(first));
    const std::int64_t x_stride = packs() ? padded_columns() : in_.row_bytes() / 4;
    const bool last = block + 1 == blocks_;
    if constexpr (Codes::kWidth > 1) {
      const LinearPart& part = weight_.part_of(row);
      if (in_.rows() == 1 && widens_in_registers(part) && row + count <= part.first_row + part.rows())
        return multiply_row(part, row, count, block, x + begin, sums);
    }
    auto* panel = reinterpret_cast<float*>(scratch.panel.data());
    for (std::int64_t n = 0; n < count; ++n) {
      const LinearPart& part = weight_.part_of(row + n);
      unpack_floats<Codes>(part, row + n - part.first_row, begin, columns, panel + n * kBlockColumns);
      for (std::int64_t k = columns; k < padded; ++k) panel[n * kBlockColumns + k] = 0.0f;
    }
    const auto dot = [&]<int R, int T>(std::int64_t n, std::int64_t t) {
      float products[R * T];
      dot_floats<Codes, R, T>(panel + n * kBlockColumns, kBlockColumns, x + t * x_stride + begin, x_stride,
                              padded, products);
      for (int i = 0; i < R * T; ++i) {
        float& sum = sums[(t + i % T) * stride + n + i / T];
        const float total = block == 0 ? products[i] : sum + products[i];
        sum = last ? finished(total, row + n + i / T, first + t + i % T) : total;
      }
    };
    for_each_tile(count, rows, dot);
  }

  // multiply_floats for one row of input and rows of one part. Not inlined: the registers of the loops over
  // many rows shall not be shared with it.
  [[gnu::noinline]] void multiply_row(const LinearPart& part, std::int64_t row, std::int64_t count,
                                      std::int64_t block, const float* x, float* sums) const {
    const std::int64_t begin = block * kBlockColumns,
                       columns = std::min(kBlockColumns, in_.columns() - begin);
    float products[Unit::kHalf];
    const std::int64_t first_row = row - part.first_row;
    std::int64_t n = 0;
    for (; n + kRows <= count; n += kRows)
      dot_stored_rows<Codes, kRows>(part, first_row + n, begin, columns, x, products + n);
    for (; n < count; ++n) dot_stored_rows<Codes, 1>(part, first_row + n, begin, columns, x, products + n);
    for (n = 0; n < count; ++n) {
      const float total = block == 0 ? products[n] : sums[n] + products[n];
      sums[n] = block + 1 == blocks_ ? finished(total, row + n, 0) : total;
    }
  }

  // Calls dot<R, T>(n, t) over [0, count) x [0, rows): whole tiles, then what is left one by one.
  template <class Dot>
  static void for_each_tile(std::int64_t count, std::int64_t rows, const Dot& dot) {
    std::int64_t t = 0;
    for (; t + kTokens <= rows; t += kTokens) {
      std::int64_t n = 0;
      for (; n + kRows <= count; n += kRows) dot.template operator()<kRows, kTokens>(n, t);
      for (; n < count; ++n) dot.template operator()<1, kTokens>(n, t);
    }
    for (; t < rows; ++t) {
      std::int64_t n = 0;
      for (; n + kRows <= count; n += kRows) dot.template operator()<kRows, 1>(n, t);
      for (; n < count; ++n) dot.template operator()<1, 1>(n, t);
    }
  }

  float finished(float sum, std::int64_t weight_row, std::int64_t row) const {
    if (weight_.row_scales()) sum *= weight_.row_scales()[weight_row];
    if (in_.type() != InputType::kNone) sum *= in_.scale(row);
    return weight_.bias() ? sum + weight_.bias()[weight_row] : sum;
  }

  const CpuLinearInput& in_;
  const CpuLinearWeight& weight_;
  const bool integer_;
  const std::int64_t blocks_;
};

}  // namespace bise
