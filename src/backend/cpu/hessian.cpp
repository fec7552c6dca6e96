#include "backend/cpu/hessian.h"

#include "backend/cpu/hessian_amx.h"
#include "base/check.h"

namespace bise {

void Hessian::accumulate_float(const float* x, std::int64_t stride, const CpuLinearInput& in,
                               float* hessian) {
  const RowKernels& kernels = row_kernels(isa_);
  const std::int64_t columns = in.columns(), height = kernels.syrk_tile_rows;
  const std::int64_t span = kernels.syrk_tile_columns;
  const std::int64_t tiles = (columns + height - 1) / height;
  pool_.parallel_for(tiles, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin * height; row < end * height; row += height)
      for (std::int64_t column = row / span * span; column < columns; column += span)
        kernels.add_syrk_tile(x, stride, in.rows(), row, column, columns, hessian);
  });
}

void Hessian::accumulate(const CpuLinearInput& in, std::span<float> hessian) {
  const std::int64_t columns = in.columns();
  check(hessian.size() == static_cast<std::size_t>(columns * columns), "the hessian is [columns, columns]");
  if (isa_ == Isa::kAmx && in.type() == InputType::kNone && !in.halves()) {
    const std::int64_t bytes = syrk_scratch_bytes(in.rows(), columns);
    if (scratch_.size() < bytes) scratch_ = AlignedBuffer<std::byte>(bytes);
    return add_syrk(pool_, in.row_data(0), in.row_bytes(), in.rows(), columns, scratch_.data(),
                    hessian.data());
  }
  const std::int64_t stride = (columns + CpuLinearInput::kColumnPadding - 1) /
                              CpuLinearInput::kColumnPadding * CpuLinearInput::kColumnPadding;
  // The last row's tiles read on beyond it.
  const std::int64_t size = in.rows() * stride + row_kernels(isa_).syrk_tile_columns;
  if (rows_.size() < size) rows_ = AlignedBuffer<float>(size);
  pool_.parallel_for(in.rows(), 16, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) in.decode_row(row, rows_.data() + row * stride);
  });
  accumulate_float(rows_.data(), stride, in, hessian.data());
}

}  // namespace bise
