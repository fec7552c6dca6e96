// GPTQ's kernels but its products. The arithmetic of a column is that of quantize/gptq.cpp, operation by
// operation and without fused multiply-add, so that codes agree: only the products that spread errors beyond
// a block sum in another order.
#include <cuda_fp16.h>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/gptq_kernels.h"

namespace bise::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kColumnWarps = 16;  // rows of a block of quantize_columns
constexpr int kLaneColumns = kGptqBlock / 32;
constexpr int kTile = 32;

__device__ inline float stored_value(const StoredWeight& weight, std::int64_t index) {
  switch (weight.type) {
    case StoredFloat::kBf16: return __bfloat162float(static_cast<const bf16*>(weight.data)[index]);
    case StoredFloat::kF16: return __half2float(static_cast<const __half*>(weight.data)[index]);
    default: return static_cast<const float*>(weight.data)[index];
  }
}

__device__ inline double warp_sum(double value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(~0u, value, offset);
  return value;
}

// One warp a group.
__global__ void ranges_kernel(StoredWeight weight, std::int64_t group_columns, std::int64_t groups,
                              float2* ranges) {
  const std::int64_t group = blockIdx.x * std::int64_t{kThreads / 32} + threadIdx.x / 32;
  if (group >= groups) return;
  float low = 0, high = 0;
  for (std::int64_t i = threadIdx.x % 32; i < group_columns; i += 32) {
    const float value = stored_value(weight, group * group_columns + i);
    low = fminf(low, value);
    high = fmaxf(high, value);
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    low = fminf(low, __shfl_xor_sync(~0u, low, offset));
    high = fmaxf(high, __shfl_xor_sync(~0u, high, offset));
  }
  if (threadIdx.x % 32 == 0) ranges[group] = {low, high};
}

// Block a fills column a of the lower triangle.
__global__ void reversed_kernel(const float* hessian, std::int64_t width, std::int64_t columns,
                                const std::int32_t* order, float divisor, float damping, double* matrix) {
  const std::int64_t a = blockIdx.x, i = order[columns - 1 - a];
  for (std::int64_t b = a + threadIdx.x; b < columns; b += kThreads) {
    const std::int64_t j = order[columns - 1 - b];
    float value = __fdiv_rn(hessian[min(i, j) * width + max(i, j)], divisor);
    if (a == b) value = __fadd_rn(value == 0 ? 1.f : value, damping);
    matrix[a * columns + b] = value;
  }
}

// Block b inverts the b-th block of the diagonal, a thread a column: forward substitution.
__global__ void __launch_bounds__(kInverseBlock) invert_blocks_kernel(double* matrix, std::int64_t size) {
  extern __shared__ double lower[];  // column-major; then the inverse
  double* inverse = lower + kInverseBlock * kInverseBlock;
  const std::int64_t first = blockIdx.x * std::int64_t{kInverseBlock};
  const int count = static_cast<int>(min(size - first, std::int64_t{kInverseBlock})), column = threadIdx.x;
  double* block = matrix + first * size + first;
  for (int i = 0; i < count; ++i)
    if (column < count) lower[i * kInverseBlock + column] = block[i * size + column];
  __syncthreads();
  if (column < count)
    for (int row = column; row < count; ++row) {
      double sum = row == column ? 1 : 0;
      for (int k = column; k < row; ++k)
        sum -= lower[k * kInverseBlock + row] * inverse[k * kInverseBlock + column];
      inverse[row * kInverseBlock + column] = sum / lower[row * kInverseBlock + row];
    }
  __syncthreads();
  for (int i = 0; i < count; ++i)
    if (column < count) block[i * size + column] = column < i ? 0 : inverse[column * kInverseBlock + i];
}

__global__ void clear_upper_kernel(double* matrix, std::int64_t size) {
  const std::int64_t column = blockIdx.x;
  for (std::int64_t row = threadIdx.x; row < column; row += kThreads) matrix[column * size + row] = 0;
}

// Tiles of kTile x kTile through shared memory: the factor is read by columns and written by rows.
__global__ void upper_kernel(const double* inverse, std::int64_t columns, std::int64_t width, float* upper,
                             int* bad) {
  __shared__ float tile[kTile][kTile + 1];
  const std::int64_t first_row = blockIdx.y * std::int64_t{kTile}, first = blockIdx.x * std::int64_t{kTile};
  for (int i = threadIdx.y; i < kTile; i += blockDim.y) {
    const std::int64_t row = first_row + threadIdx.x, column = first + i;
    float value = 0;
    if (column < columns && row <= column)
      value = static_cast<float>(inverse[(columns - 1 - column) * columns + columns - 1 - row]);
    if (row == column && row < columns && !(value > 0 && value < INFINITY)) *bad = 1;
    tile[i][threadIdx.x] = value;
  }
  __syncthreads();
  for (int i = threadIdx.y; i < kTile; i += blockDim.y) {
    const std::int64_t row = first_row + i, column = first + threadIdx.x;
    if (row < columns && column < width) upper[row * width + column] = tile[threadIdx.x][i];
  }
}

__global__ void identity_kernel(std::int64_t width, float* upper) {
  const std::int64_t row = blockIdx.x;
  for (std::int64_t i = threadIdx.x; i < width; i += kThreads) upper[row * width + i] = i == row ? 1.f : 0.f;
}

__global__ void ordered_kernel(StoredWeight weight, const std::int32_t* order, const float* diagonal,
                               std::int64_t width, float* out) {
  const std::int64_t row = blockIdx.x;
  for (std::int64_t i = threadIdx.x; i < width; i += kThreads) {
    float value = 0;
    if (i < weight.columns && diagonal[order[i]] != 0)
      value = stored_value(weight, row * weight.columns + order[i]);
    out[row * width + i] = value;
  }
}

__device__ inline float rounded(StoredFloat type, float value) {
  switch (type) {
    case StoredFloat::kBf16: return __bfloat162float(__float2bfloat16_rn(value));
    case StoredFloat::kF16: return __half2float(__float2half_rn(value));
    default: return value;
  }
}

__device__ inline float decoded(const CodeRule& rule, std::uint8_t code, float scale, float zero_point) {
  const float level = rule.is_e4m3 ? from_e4m3(code) : static_cast<float>(static_cast<std::int8_t>(code));
  return __fmul_rn(__fsub_rn(level, zero_point), scale);
}

template <bool kIsE4M3>
__device__ inline std::uint8_t nearest_code(float quotient, float lowest, float highest) {
  const float clamped = fminf(fmaxf(quotient, lowest), highest);
  if constexpr (kIsE4M3) return to_e4m3(clamped);
  return static_cast<std::uint8_t>(static_cast<std::int8_t>(rintf(clamped)));
}
template <bool kIsE4M3>
__device__ inline float lowest_code(const CodeRule& rule) {
  return kIsE4M3 ? -kE4M3Largest : -static_cast<float>(1 << (rule.bits - 1));
}
template <bool kIsE4M3>
__device__ inline float highest_code(const CodeRule& rule) {
  return kIsE4M3 ? kE4M3Largest : static_cast<float>((1 << (rule.bits - 1)) - 1);
}

// Coder::encode of Coder::decode (quantize/arithmetic.h) with every step rounded.
template <bool kIsE4M3>
__device__ inline std::uint8_t derived_again(const CodeRule& rule, std::uint8_t code, float scale,
                                             float zero_point) {
  const float value = rounded(rule.product, decoded(rule, code, scale, zero_point));
  const float quotient = rounded(rule.product, __fdiv_rn(value, scale));
  return nearest_code<kIsE4M3>(kIsE4M3 ? quotient : rounded(rule.product, __fadd_rn(quotient, zero_point)),
                               lowest_code<kIsE4M3>(rule), highest_code<kIsE4M3>(rule));
}

__device__ inline float zero_point_at(const CodeRule& rule, std::int64_t index) {
  return rule.zero_points ? static_cast<float>(rule.zero_points[index]) : 0.f;
}

// A warp holds one row of the block, lane l its columns l, l + 32, l + 64 and l + 96.
template <bool kIsE4M3, StoredFloat kProduct>
__global__ void __launch_bounds__(kColumnWarps * 32)
    columns_kernel(const float* weight, std::int64_t rows, int count, std::int64_t width, std::int64_t begin,
                   const float* upper, const std::int32_t* order, CodeRule rule, std::uint8_t* codes,
                   float* errors, double* losses) {
  extern __shared__ float block_upper[];  // [kGptqBlock, kGptqBlock]
  for (int i = threadIdx.x; i < kGptqBlock * kGptqBlock; i += kColumnWarps * 32) {
    const int row = i / kGptqBlock, column = i % kGptqBlock;
    block_upper[i] = row < count && column < count ? upper[(begin + row) * width + begin + column] : 0.f;
  }
  __syncthreads();
  const int lane = threadIdx.x % 32;
  const std::int64_t row = blockIdx.x * std::int64_t{kColumnWarps} + threadIdx.x / 32;
  if (row >= rows) return;
  const float lowest = lowest_code<kIsE4M3>(rule), highest = highest_code<kIsE4M3>(rule);
  float value[kLaneColumns], scale[kLaneColumns], zero[kLaneColumns], pivot[kLaneColumns];
  float error[kLaneColumns] = {};
  std::uint8_t code[kLaneColumns] = {};
#pragma unroll
  for (int q = 0; q < kLaneColumns; ++q) {
    const int i = q * 32 + lane;
    const bool is_there = i < count;
    const std::int64_t group = row * rule.groups + (is_there ? order[begin + i] / rule.group_columns : 0);
    value[q] = is_there ? weight[row * width + begin + i] : 0.f;
    scale[q] = rule.scales[group];
    zero[q] = zero_point_at(rule, group);
    pivot[q] = is_there ? block_upper[i * kGptqBlock + i] : 1.f;
  }
#pragma unroll
  for (int q = 0; q < kLaneColumns; ++q) {
    const int last = min(count - q * 32, 32);
    for (int l = 0; l < last; ++l) {
      // Every lane rounds its own column; that of lane l has its turn.
      const float quotient = __fadd_rn(__fdiv_rn(value[q], scale[q]), zero[q]);
      const std::uint8_t mine = nearest_code<kIsE4M3>(quotient, lowest, highest);
      const float product = rounded(kProduct, decoded(rule, mine, scale[q], zero[q]));
      const float off = __fdiv_rn(__fsub_rn(value[q], product), pivot[q]);
      if (lane == l) {
        code[q] = mine;
        error[q] = off;
      }
      const float spread = __shfl_sync(~0u, off, l);
      const float* row_upper = block_upper + (q * 32 + l) * kGptqBlock + lane;
#pragma unroll
      for (int p = q; p < kLaneColumns; ++p)
        value[p] = __fsub_rn(value[p], __fmul_rn(spread, row_upper[p * 32]));
    }
  }
  double loss = 0;
#pragma unroll
  for (int q = 0; q < kLaneColumns; ++q) {
    const int i = q * 32 + lane;
    errors[row * kGptqBlock + i] = error[q];
    if (i < count) codes[row * width + begin + i] = code[q];
    loss += 0.5 * static_cast<double>(error[q]) * error[q];
  }
  loss = warp_sum(loss);
  if (lane == 0) losses[row] += loss;
}

// Word `word` of the little-endian string of `bits`-bit codes, each offset by half its range.
__device__ inline std::uint32_t packed_word(const std::uint8_t* codes, std::int64_t columns, int bits,
                                            std::int64_t word) {
  const int offset = 1 << (bits - 1);
  const std::uint32_t mask = (1u << bits) - 1;
  std::uint32_t result = 0;
  for (std::int64_t k = word * 32 / bits; k < columns && k * bits < (word + 1) * 32; ++k) {
    const std::uint32_t code = static_cast<std::uint32_t>(static_cast<std::int8_t>(codes[k]) + offset) & mask;
    const int shift = static_cast<int>(k * bits - word * 32);
    result |= shift >= 0 ? code << shift : code >> -shift;
  }
  return result;
}

// A block has one row, whose codes it brings into the original order in shared memory.
__global__ void finish_kernel(StoredWeight weight, std::int64_t width, const std::int32_t* order,
                              CodeRule rule, const std::uint8_t* codes, bool derive_again, bool packed,
                              void* out, double* sums) {
  extern __shared__ std::uint8_t in_order[];
  __shared__ double parts[2][kThreads / 32];
  const std::int64_t row = blockIdx.x, columns = weight.columns;
  double squared_error = 0, squared_weights = 0;
  for (std::int64_t i = threadIdx.x; i < columns; i += kThreads) {
    const std::int64_t column = order[i], group = row * rule.groups + column / rule.group_columns;
    const float scale = rule.scales[group], zero_point = zero_point_at(rule, group);
    std::uint8_t code = codes[row * width + i];
    if (derive_again)
      code = rule.is_e4m3 ? derived_again<true>(rule, code, scale, zero_point)
                          : derived_again<false>(rule, code, scale, zero_point);
    in_order[column] = code;
    const double value = stored_value(weight, row * columns + column);
    const double off = value - decoded(rule, code, scale, zero_point);
    squared_error += off * off;
    squared_weights += value * value;
  }
  squared_error = warp_sum(squared_error);
  squared_weights = warp_sum(squared_weights);
  if (threadIdx.x % 32 == 0) {
    parts[0][threadIdx.x / 32] = squared_error;
    parts[1][threadIdx.x / 32] = squared_weights;
  }
  __syncthreads();
  if (threadIdx.x < 2) {
    double sum = 0;
    for (const double part : parts[threadIdx.x]) sum += part;
    sums[row * 2 + threadIdx.x] = sum;
  }
  if (packed) {
    const std::int64_t words = (columns * rule.bits + 31) / 32;
    for (std::int64_t word = threadIdx.x; word < words; word += kThreads)
      static_cast<std::uint32_t*>(out)[row * words + word] = packed_word(in_order, columns, rule.bits, word);
  } else {
    for (std::int64_t i = threadIdx.x; i < columns; i += kThreads)
      static_cast<std::uint8_t*>(out)[row * columns + i] = in_order[i];
  }
}

template <bool kIsE4M3>
auto columns_kernel_of(StoredFloat product) {
  switch (product) {
    case StoredFloat::kBf16: return columns_kernel<kIsE4M3, StoredFloat::kBf16>;
    case StoredFloat::kF16: return columns_kernel<kIsE4M3, StoredFloat::kF16>;
    default: return columns_kernel<kIsE4M3, StoredFloat::kF32>;
  }
}

void allow_shared(const void* kernel, std::size_t bytes) {
  cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
}

}  // namespace

void weight_ranges(const StoredWeight& weight, std::int64_t group_columns, float2* ranges,
                   cudaStream_t stream) {
  const std::int64_t groups = weight.rows * weight.columns / group_columns;
  ranges_kernel<<<blocks_for(groups, kThreads / 32), kThreads, 0, stream>>>(weight, group_columns, groups,
                                                                            ranges);
}

void reversed_hessian(const float* hessian, std::int64_t width, std::int64_t columns,
                      const std::int32_t* order, float divisor, float damping, double* matrix,
                      cudaStream_t stream) {
  reversed_kernel<<<static_cast<unsigned>(columns), kThreads, 0, stream>>>(hessian, width, columns, order,
                                                                           divisor, damping, matrix);
}

void invert_diagonal_blocks(double* matrix, std::int64_t size, cudaStream_t stream) {
  constexpr std::size_t kShared = 2 * kInverseBlock * kInverseBlock * sizeof(double);
  clear_upper_kernel<<<static_cast<unsigned>(size), kThreads, 0, stream>>>(matrix, size);
  allow_shared(reinterpret_cast<const void*>(invert_blocks_kernel), kShared);
  invert_blocks_kernel<<<blocks_for(size, kInverseBlock), kInverseBlock, kShared, stream>>>(matrix, size);
}

void upper_factor(const double* inverse, std::int64_t columns, std::int64_t width, float* upper, int* bad,
                  cudaStream_t stream) {
  const dim3 grid(blocks_for(width, kTile), blocks_for(columns, kTile));
  upper_kernel<<<grid, dim3(kTile, 8), 0, stream>>>(inverse, columns, width, upper, bad);
}

void identity(std::int64_t columns, std::int64_t width, float* upper, cudaStream_t stream) {
  identity_kernel<<<static_cast<unsigned>(columns), kThreads, 0, stream>>>(width, upper);
}

void ordered_weight(const StoredWeight& weight, const std::int32_t* order, const float* diagonal,
                    std::int64_t width, float* out, cudaStream_t stream) {
  ordered_kernel<<<static_cast<unsigned>(weight.rows), kThreads, 0, stream>>>(weight, order, diagonal, width,
                                                                              out);
}

void quantize_columns(const float* weight, std::int64_t rows, std::int64_t columns, std::int64_t width,
                      std::int64_t begin, const float* upper, const std::int32_t* order, const CodeRule& rule,
                      std::uint8_t* codes, float* errors, double* losses, cudaStream_t stream) {
  constexpr std::size_t kShared = kGptqBlock * kGptqBlock * sizeof(float);
  const auto kernel =
      rule.is_e4m3 ? columns_kernel_of<true>(rule.product) : columns_kernel_of<false>(rule.product);
  allow_shared(reinterpret_cast<const void*>(kernel), kShared);
  const int count = static_cast<int>(columns - begin < kGptqBlock ? columns - begin : kGptqBlock);
  kernel<<<blocks_for(rows, kColumnWarps), kColumnWarps * 32, kShared, stream>>>(
      weight, rows, count, width, begin, upper, order, rule, codes, errors, losses);
}

void finish_codes(const StoredWeight& weight, std::int64_t width, const std::int32_t* order,
                  const CodeRule& rule, const std::uint8_t* codes, bool derive_again, bool packed, void* out,
                  double* sums, cudaStream_t stream) {
  const auto shared = static_cast<std::size_t>(weight.columns);
  allow_shared(reinterpret_cast<const void*>(finish_kernel), shared);
  finish_kernel<<<static_cast<unsigned>(weight.rows), kThreads, shared, stream>>>(
      weight, width, order, rule, codes, derive_again, packed, out, sums);
}

}  // namespace bise::cuda
