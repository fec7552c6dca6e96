// Weights expanded to bf16 for the large products of cuBLASLt, and the scales applied after those.
#include "backend/cuda/device_math.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/launch.cuh"

namespace bise::cuda {
namespace {

constexpr int kThreads = 256;

__device__ inline float code_of(const Weight& weight, std::int64_t row, std::int64_t column) {
  const auto* bytes = static_cast<const std::uint8_t*>(weight.codes);
  const std::int64_t index = row * weight.stride + column;
  switch (weight.format) {
    case WeightFormat::kBf16: return __bfloat162float(static_cast<const bf16*>(weight.codes)[index]);
    case WeightFormat::kFp8: return from_e4m3(bytes[index]);
    case WeightFormat::kInt8: return static_cast<float>(static_cast<std::int8_t>(bytes[index]));
    case WeightFormat::kInt4: return static_cast<float>((bytes[index / 2] >> (index % 2 * 4)) & 15) - 8.f;
    case WeightFormat::kNf4: return weight.levels[(bytes[index / 2] >> ((1 - index % 2) * 4)) & 15];
  }
  return 0;
}

// A thread writes 8 consecutive columns.
__global__ void dequantize_kernel(Weight weight, bf16* out) {
  const std::int64_t row = blockIdx.y;
  const std::int64_t first = (blockIdx.x * std::int64_t{kThreads} + threadIdx.x) * 8;
  if (first >= weight.stride) return;
  alignas(16) bf16 values[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const std::int64_t column = first + i;
    float value = code_of(weight, row, column);
    if (weight.scales) {
      const std::int64_t at = row * weight.groups + column / weight.group_size;
      if (weight.zero_points) value -= static_cast<float>(weight.zero_points[at]);
      value *= weight.scales[at];
    }
    values[i] = __float2bfloat16_rn(value);
  }
  *reinterpret_cast<uint4*>(out + row * weight.stride + first) = *reinterpret_cast<const uint4*>(values);
}

constexpr int kScaledTogether = 4;  // columns of a thread, where they divide by it

template <int kColumns, class Sum, class Out>
__global__ void scale_kernel(const Sum* sums, std::int64_t columns, SumScales scales, Out* out) {
  const std::int64_t first = (blockIdx.x * std::int64_t{kThreads} + threadIdx.x) * kColumns;
  let_next_kernel_begin();
  wait_for_earlier_kernels();
  if (first >= columns) return;
  const std::int64_t at = blockIdx.y * columns + first;
  using In = std::conditional_t<kColumns == 1, Sum, uint4>;
  alignas(16) Sum in[kColumns];
  *reinterpret_cast<In*>(in) = *reinterpret_cast<const In*>(sums + at);
  alignas(16) Out result[kColumns];
  const float row_scale = scales.rows ? scales.rows[blockIdx.y] : 1.f;
#pragma unroll
  for (int i = 0; i < kColumns; ++i) {
    float value = static_cast<float>(in[i]);
    if (scales.columns) value *= scales.columns[first + i];
    value *= row_scale;
    if (scales.bias) value += scales.bias[first + i];
    store_value(result + i, value);
  }
  using Result = std::conditional_t<kColumns == 1, Out, std::conditional_t<sizeof(Out) == 4, uint4, uint2>>;
  *reinterpret_cast<Result*>(out + at) = *reinterpret_cast<const Result*>(result);
}

}  // namespace

void dequantize(const Weight& weight, void* out, cudaStream_t stream) {
  const dim3 grid(blocks_for(weight.stride / 8, kThreads), static_cast<unsigned>(weight.rows));
  dequantize_kernel<<<grid, kThreads, 0, stream>>>(weight, static_cast<bf16*>(out));
}

void scale_sums(const void* sums, bool integers, std::int64_t rows, std::int64_t columns,
                const SumScales& scales, Values out, cudaStream_t stream) {
  const bool together = columns % kScaledTogether == 0;
  const dim3 grid(blocks_for(columns / (together ? kScaledTogether : 1), kThreads),
                  static_cast<unsigned>(rows));
  with_type(out, [&](auto* values) {
    using Out = std::remove_pointer_t<decltype(values)>;
    const auto start = [&](auto* in) {
      using Sum = std::remove_cv_t<std::remove_pointer_t<decltype(in)>>;
      launch(together ? scale_kernel<kScaledTogether, Sum, Out> : scale_kernel<1, Sum, Out>, grid, kThreads,
             0, stream, in, columns, scales, values);
    };
    if (integers)
      start(static_cast<const std::int32_t*>(sums));
    else
      start(static_cast<const float*>(sums));
  });
}

}  // namespace bise::cuda
