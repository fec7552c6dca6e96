// Weights expanded to bf16 for the large products of cuBLASLt, and the scales applied after those.
#include "backend/cuda/device_math.cuh"

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

template <class Sum, class Out>
__global__ void scale_kernel(const Sum* sums, std::int64_t columns, const float* row_scales,
                             const float* column_scales, const float* bias, Out* out) {
  const std::int64_t column = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  if (column >= columns) return;
  const std::int64_t at = blockIdx.y * columns + column;
  float value = static_cast<float>(sums[at]);
  if (column_scales) value *= column_scales[column];
  if (row_scales) value *= row_scales[blockIdx.y];
  if (bias) value += bias[column];
  store_value(out + at, value);
}

}  // namespace

void dequantize(const Weight& weight, void* out, cudaStream_t stream) {
  const dim3 grid(blocks_for(weight.stride / 8, kThreads), static_cast<unsigned>(weight.rows));
  dequantize_kernel<<<grid, kThreads, 0, stream>>>(weight, static_cast<bf16*>(out));
}

void scale_sums(const void* sums, bool integers, std::int64_t rows, std::int64_t columns,
                const float* row_scales, const float* column_scales, const float* bias, Values out,
                cudaStream_t stream) {
  const dim3 grid(blocks_for(columns, kThreads), static_cast<unsigned>(rows));
  with_type(out, [&](auto* values) {
    if (integers)
      scale_kernel<<<grid, kThreads, 0, stream>>>(static_cast<const std::int32_t*>(sums), columns, row_scales,
                                                  column_scales, bias, values);
    else
      scale_kernel<<<grid, kThreads, 0, stream>>>(static_cast<const float*>(sums), columns, row_scales,
                                                  column_scales, bias, values);
  });
}

}  // namespace bise::cuda
