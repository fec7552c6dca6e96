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

// Blocks stay for row after row, with the weight in registers, and ask for the next row before they norm this
// one. More blocks, with fewer registers each, spill: 75 us instead of 38 for 8192 rows of 4096 columns, 41
// with half of a row's vectors a thread (H200).
template <int kVectors, bool kAdds>
__global__ void __launch_bounds__(kMostNormThreads, 2) norm_rows_kernel(ShortNorm norm, Encoded out) {
  __shared__ float scratch[32];
  const auto* delta = static_cast<const bf16*>(norm.delta);
  auto* residual = static_cast<bf16*>(norm.residual);
  const std::int64_t columns = out.columns;
  // The weight is nobody's result: it is read while kernels before this one end.
  float weights[kVectors][kWide] = {};
#pragma unroll
  for (int v = 0; v < kVectors; ++v)
    if (wide_column(v) < columns) load_wide(norm.weight + wide_column(v), weights[v]);
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  WideRaw<bf16> row[kVectors] = {}, next[kVectors] = {}, added[kVectors] = {}, next_added[kVectors] = {};
  const auto first_of = [&](std::int64_t index) { return (norm.rows ? norm.rows[index] : index) * columns; };
  const auto ask_for = [&](std::int64_t index) {
    if (index >= norm.count) return;
    load_row(residual + first_of(index), columns, next);
    if (kAdds) load_row(delta + first_of(index), columns, next_added);
  };
  ask_for(blockIdx.x);
  for (std::int64_t index = blockIdx.x; index < norm.count; index += gridDim.x) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      row[v] = next[v];
      if (kAdds) added[v] = next_added[v];
    }
    ask_for(index + gridDim.x);
    float squares = 0, values[kWide];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      load_wide(row[v].values, values);
      if (kAdds) {
        float addends[kWide];
        load_wide(added[v].values, addends);
#pragma unroll
        for (int i = 0; i < kWide; ++i) values[i] += addends[i];
        store_wide(row[v].values, values);
        if (wide_column(v) < columns)
          *reinterpret_cast<WideRaw<bf16>*>(residual + first_of(index) + wide_column(v)) = row[v];
        load_wide(row[v].values, values);  // as rounded
      }
#pragma unroll
      for (int i = 0; i < kWide; ++i) squares += values[i] * values[i];
    }
    squares = row_reduce(squares, 0.f, scratch, [](float a, float b) { return a + b; });
    const float inverse = 1.f / sqrtf(squares / static_cast<float>(columns) + norm.eps);
    encode_loaded<kVectors>(index, out, norm.static_scale, scratch, [&](int v, float(&normed)[kWide]) {
      load_wide(row[v].values, normed);
#pragma unroll
      for (int i = 0; i < kWide; ++i) normed[i] = normed[i] * inverse * weights[v][i];
    });
  }
}

RowShape norm_shape(std::int64_t columns) {
  const std::int64_t stride = padded(columns);
  return row_shape(columns, stride, short_row_threads(stride));
}

// As many as run at once.
template <class Kernel>
std::int64_t resident_blocks(Kernel kernel, unsigned threads) {
  int device = 0, multiprocessors = 0, blocks = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, kernel, static_cast<int>(threads), 0);
  return std::int64_t{multiprocessors} * blocks;
}

template <bool kAdds>
void launch_norm(const ShortNorm& norm, const Encoded& out, cudaStream_t stream) {
  const RowShape shape = norm_shape(out.columns);
  with_vectors(shape.vectors, [&](auto vectors) {
    const auto kernel = norm_rows_kernel<decltype(vectors)::value, kAdds>;
    const std::int64_t blocks = std::min(norm.count, resident_blocks(kernel, shape.threads));
    launch(kernel, static_cast<unsigned>(blocks), shape.threads, 0, stream, norm, out);
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
