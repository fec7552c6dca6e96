#include "backend/cpu/hessian.h"

#include "backend/cpu/hessian_amx.h"
#include "base/check.h"

namespace bise {
namespace {

constexpr std::int64_t kTileRows = 4;

}  // namespace

void Hessian::accumulate_float(const float* x, std::int64_t stride, const CpuLinearInput& in,
                               float* hessian) {
  const RowKernels& kernels = row_kernels(isa_);
  const std::int64_t columns = in.columns(), span = kernels.syrk_tile_columns;
  const std::int64_t tiles = (columns + kTileRows - 1) / kTileRows;
  pool_.parallel_for(tiles, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin * kTileRows; row < end * kTileRows; row += kTileRows)
      for (std::int64_t column = row / span * span; column < columns; column += span)
        kernels.add_syrk_tile(x, stride, in.rows(), row, column, columns, hessian);
  });
}

void Hessian::accumulate(const CpuLinearInput& in, std::span<float> hessian) {
  const std::int64_t columns = in.columns();
  check(hessian.size() == static_cast<std::size_t>(columns * columns), "the hessian is [columns, columns]");
  const std::int64_t stride = (columns + CpuLinearInput::kColumnPadding - 1) /
                              CpuLinearInput::kColumnPadding * CpuLinearInput::kColumnPadding;
  if (rows_.size() < in.rows() * stride) rows_ = AlignedBuffer<float>(in.rows() * stride);
  pool_.parallel_for(in.rows(), 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) in.decode_row(row, rows_.data() + row * stride);
  });
  accumulate_float(rows_.data(), stride, in, hessian.data());
}

}  // namespace bise
