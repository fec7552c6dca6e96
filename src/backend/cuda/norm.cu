// RMSNorm fused with the addition before it and the encoding after it: a block to each row.
#include "backend/cuda/device_math.cuh"

namespace bise::cuda {
namespace {

constexpr int kThreads = 256;  // of the addition

// Adds to the rows that are not normed. (When all are, the norm adds.)
template <class T>
__global__ void add_kernel(const T* delta, float* residual, std::int64_t count) {
  const std::int64_t i = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  if (i < count) residual[i] += load_value(delta + i);
}

// `delta` may be null. A row's values stay in shared memory.
template <class T>
__global__ void norm_kernel(const T* delta, float* residual, const float* weight, float eps,
                            float static_scale, const std::int32_t* rows, Encoded out) {
  extern __shared__ float values[];
  __shared__ float scratch[32];
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
    auto* fused = addend;
    if (addend && rows) {
      const std::int64_t all = residual_rows * out.columns;
      add_kernel<<<blocks_for(all, kThreads), kThreads, 0, stream>>>(addend, residual, all);
      fused = nullptr;
    }
    if (shared > 40 * 1024)  // beside the static part
      cudaFuncSetAttribute(norm_kernel<std::remove_pointer_t<decltype(addend)>>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared));
    norm_kernel<<<static_cast<unsigned>(count), threads_for(out.columns), shared, stream>>>(
        fused, residual, weight, eps, static_scale, rows, out);
  });
}

}  // namespace bise::cuda
