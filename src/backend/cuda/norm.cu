// RMSNorm fused with the addition before it and the encoding after it: a block to each row.
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/row_vectors.cuh"

namespace bise::cuda {
namespace {

constexpr int kThreads = 256;  // of the addition
constexpr std::int64_t kManyRows = 512;

// Adds to the rows that are not normed. (When all are, the norm adds.)
template <class T>
__global__ void add_kernel(const T* delta, float* residual, std::int64_t count) {
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const std::int64_t i = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  if (i < count) residual[i] += load_value(delta + i);
}

// `delta` may be null. The weight is nobody's result: it is read while kernels before this one end.
template <int kVectors, class T>
__global__ void __launch_bounds__(kMostRowThreads)
    norm_vectors_kernel(const T* delta, float* residual, const float* weight, float eps, float static_scale,
                        const std::int32_t* rows, Encoded out) {
  __shared__ float scratch[32];
  float values[kVectors][kWide] = {}, weights[kVectors][kWide];
#pragma unroll
  for (int v = 0; v < kVectors; ++v)
    if (wide_column(v) < out.columns) load_wide(weight + wide_column(v), weights[v]);
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const std::int64_t first = (rows ? rows[blockIdx.x] : static_cast<std::int64_t>(blockIdx.x)) * out.columns;
  float squares = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (wide_column(v) >= out.columns) continue;
    float* at = residual + first + wide_column(v);
    load_wide(at, values[v]);
    if (delta) {
      float added[kWide];
      load_wide(delta + first + wide_column(v), added);
#pragma unroll
      for (int i = 0; i < kWide; ++i) values[v][i] += added[i];
      store_wide(at, values[v]);
    }
#pragma unroll
    for (int i = 0; i < kWide; ++i) squares += values[v][i] * values[v][i];
  }
  squares = row_reduce(squares, 0.f, scratch, [](float a, float b) { return a + b; });
  const float inverse = 1.f / sqrtf(squares / static_cast<float>(out.columns) + eps);
#pragma unroll
  for (int v = 0; v < kVectors; ++v)
#pragma unroll
    for (int i = 0; i < kWide; ++i)
      values[v][i] = wide_column(v) < out.columns ? values[v][i] * inverse * weights[v][i] : 0.f;
  encode_vectors(blockIdx.x, out, static_scale, scratch, values);
}

// Of any width. A row's values stay in shared memory.
template <class T>
__global__ void norm_kernel(const T* delta, float* residual, const float* weight, float eps,
                            float static_scale, const std::int32_t* rows, Encoded out) {
  extern __shared__ float values[];
  __shared__ float scratch[32];
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  const std::int64_t columns = out.columns;
  const std::int64_t first = (rows ? rows[blockIdx.x] : static_cast<std::int64_t>(blockIdx.x)) * columns;
  float squares = 0;
  for (std::int64_t c = threadIdx.x; c < columns; c += blockDim.x) {
    float x = residual[first + c];
    if (delta) residual[first + c] = x += load_value(delta + first + c);
    values[c] = x;
    squares += x * x;
  }
  const float mean = block_sum(squares, scratch) / static_cast<float>(columns);
  const float inverse = 1.f / sqrtf(mean + eps);
  // Each thread reads what it wrote itself: no barrier.
  encode_row(blockIdx.x, out, static_scale, scratch,
             [&](std::int64_t c) { return values[c] * inverse * weight[c]; });
}

}  // namespace

void add_rms_norm(Values delta, float* residual, std::int64_t residual_rows, const float* weight, float eps,
                  float static_scale, const std::int32_t* rows, std::int64_t count, Encoded out,
                  cudaStream_t stream) {
  const std::size_t shared = static_cast<std::size_t>(out.columns) * sizeof(float);
  with_type(delta, [&](auto* addend) {
    using T = std::remove_pointer_t<decltype(addend)>;
    auto* fused = addend;
    if (addend && rows) {
      const std::int64_t all = residual_rows * out.columns;
      launch(add_kernel<T>, blocks_for(all, kThreads), kThreads, 0, stream, addend, residual, all);
      fused = nullptr;
    }
    // Short blocks keep the memory busier, long ones have a single row sooner.
    const std::int64_t most = count >= kManyRows
                                  ? std::min<std::int64_t>(kMostRowThreads, 2 * short_row_threads(out.stride))
                                  : kMostRowThreads;
    if (const RowShape shape = row_shape(out.columns, out.stride, most); shape.vectors > 0) {
      with_vectors(shape.vectors, [&](auto vectors) {
        launch(norm_vectors_kernel<decltype(vectors)::value, T>, static_cast<unsigned>(count), shape.threads,
               0, stream, fused, residual, weight, eps, static_scale, rows, out);
      });
      return;
    }
    if (shared > 40 * 1024)  // beside the static part
      cudaFuncSetAttribute(norm_kernel<T>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(shared));
    launch(norm_kernel<T>, static_cast<unsigned>(count), threads_for(out.columns), shared, stream, fused,
           residual, weight, eps, static_scale, rows, out);
  });
}

}  // namespace bise::cuda
