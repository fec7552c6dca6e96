#include "backend/cuda/short_residual.h"

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/row_vectors.cuh"

namespace bise::cuda {
namespace {

constexpr int kThreads = 256, kMostNormThreads = 256;

// Adds to the rows that are not normed. (When all are, the norm adds.)
__global__ void add_kernel(const bf16* delta, bf16* residual, std::int64_t count) {
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const std::int64_t i = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  if (i < count) store_value(residual + i, load_value(residual + i) + load_value(delta + i));
}

// Vectors of a row of `columns` values from `first` on.
template <int kVectors>
__device__ inline void load_row(const bf16* first, std::int64_t columns, WideRaw<bf16> (&row)[kVectors]) {
#pragma unroll
  for (int v = 0; v < kVectors; ++v)
    if (wide_column(v) < columns) row[v] = *reinterpret_cast<const WideRaw<bf16>*>(first + wide_column(v));
}

// A block to each row, of few threads: 8192 rows of 4096 columns take 33 us with 128 threads, 36 with 256 and
// 44 with 512, and 38 where blocks stay for row after row (H200).
template <int kVectors, bool kAdds>
__global__ void __launch_bounds__(kMostNormThreads, 3) norm_row_kernel(ShortNorm norm, Encoded out) {
  __shared__ float scratch[32];
  const std::int64_t columns = out.columns;
  // The weight is nobody's result: it is read while kernels before this one end.
  float weights[kVectors][kWide] = {}, values[kVectors][kWide];
#pragma unroll
  for (int v = 0; v < kVectors; ++v)
    if (wide_column(v) < columns) load_wide(norm.weight + wide_column(v), weights[v]);
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const std::int64_t first = (norm.rows ? norm.rows[blockIdx.x] : std::int64_t{blockIdx.x}) * columns;
  bf16* residual = static_cast<bf16*>(norm.residual) + first;
  WideRaw<bf16> row[kVectors] = {}, added[kVectors] = {};
  load_row(residual, columns, row);
  if (kAdds) load_row(static_cast<const bf16*>(norm.delta) + first, columns, added);
  float squares = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    load_wide(row[v].values, values[v]);
    if (kAdds) {
      float addends[kWide];
      load_wide(added[v].values, addends);
#pragma unroll
      for (int i = 0; i < kWide; ++i) values[v][i] += addends[i];
      store_wide(row[v].values, values[v]);
      if (wide_column(v) < columns) *reinterpret_cast<WideRaw<bf16>*>(residual + wide_column(v)) = row[v];
      load_wide(row[v].values, values[v]);  // as rounded
    }
#pragma unroll
    for (int i = 0; i < kWide; ++i) squares += values[v][i] * values[v][i];
  }
  squares = row_reduce(squares, 0.f, scratch, [](float a, float b) { return a + b; });
  const float inverse = 1.f / sqrtf(squares / static_cast<float>(columns) + norm.eps);
#pragma unroll
  for (int v = 0; v < kVectors; ++v)
#pragma unroll
    for (int i = 0; i < kWide; ++i) values[v][i] = values[v][i] * inverse * weights[v][i];
  encode_vectors(blockIdx.x, out, norm.static_scale, scratch, values);
}

RowShape norm_shape(std::int64_t columns) {
  const std::int64_t stride = padded(columns);
  return row_shape(columns, stride, short_row_threads(stride));
}

template <bool kAdds>
void launch_norm(const ShortNorm& norm, const Encoded& out, cudaStream_t stream) {
  const RowShape shape = norm_shape(out.columns);
  with_vectors(shape.vectors, [&](auto vectors) {
    launch(norm_row_kernel<decltype(vectors)::value, kAdds>, static_cast<unsigned>(norm.count), shape.threads,
           0, stream, norm, out);
  });
}

}  // namespace

bool supports_short_residual(std::int64_t columns) {
  const RowShape shape = norm_shape(columns);
  return shape.vectors > 0 && shape.threads <= kMostNormThreads;
}

void add_rms_norm(const ShortNorm& norm, Encoded out, cudaStream_t stream) {
  if (!norm.delta) return launch_norm<false>(norm, out, stream);
  if (!norm.rows) return launch_norm<true>(norm, out, stream);
  const std::int64_t all = norm.residual_rows * out.columns;
  launch(add_kernel, blocks_for(all, kThreads), kThreads, 0, stream, static_cast<const bf16*>(norm.delta),
         static_cast<bf16*>(norm.residual), all);
  launch_norm<false>(norm, out, stream);
}

}  // namespace bise::cuda
