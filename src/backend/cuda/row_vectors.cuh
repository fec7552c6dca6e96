// A row of a matrix in the registers of one block, 8 values a vector: vector v of thread t holds the columns
// from 8 * (v * threads + t). Rows pass through device memory once, in accesses of 16 bytes. For widths that
// are multiples of 8 and not too large; encode_row() of device_math.cuh takes the others.
#pragma once

#include "backend/cuda/device_math.cuh"

namespace bise::cuda {

constexpr int kWide = 8, kMostVectors = 4, kMostRowThreads = 1024;

struct RowShape {
  int vectors = 0;  // of a thread; 0: the row does not fit
  unsigned threads = 0;
};
inline RowShape row_shape(std::int64_t columns, std::int64_t stride) {
  const std::int64_t all = stride / kWide, vectors = (all + kMostRowThreads - 1) / kMostRowThreads;
  if (columns % kWide != 0 || vectors > kMostVectors) return {};
  return {static_cast<int>(vectors), static_cast<unsigned>(((all + vectors - 1) / vectors + 31) / 32 * 32)};
}
// Calls body with the number of vectors as a constant.
template <class Body>
void with_vectors(int vectors, Body body) {
  switch (vectors) {
    case 1: return body(std::integral_constant<int, 1>());
    case 2: return body(std::integral_constant<int, 2>());
    case 3: return body(std::integral_constant<int, 3>());
    default: return body(std::integral_constant<int, 4>());
  }
}

__device__ inline void load_wide(const float* p, float (&values)[kWide]) {
  const float4 a = *reinterpret_cast<const float4*>(p), b = *reinterpret_cast<const float4*>(p + 4);
  values[0] = a.x, values[1] = a.y, values[2] = a.z, values[3] = a.w;
  values[4] = b.x, values[5] = b.y, values[6] = b.z, values[7] = b.w;
}
__device__ inline void load_wide(const bf16* p, float (&values)[kWide]) {
  const uint4 raw = *reinterpret_cast<const uint4*>(p);
  const std::uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = __uint_as_float(words[i] << 16);
    values[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}
__device__ inline void store_wide(float* p, const float (&values)[kWide]) {
  *reinterpret_cast<float4*>(p) = {values[0], values[1], values[2], values[3]};
  *reinterpret_cast<float4*>(p + 4) = {values[4], values[5], values[6], values[7]};
}
__device__ inline void store_wide(bf16* p, const float (&values)[kWide]) {
  __nv_bfloat162 pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) pairs[i] = __floats2bfloat162_rn(values[2 * i], values[2 * i + 1]);
  *reinterpret_cast<uint4*>(p) = *reinterpret_cast<const uint4*>(pairs);
}

// The first column of vector v of this thread.
__device__ inline std::int64_t wide_column(int v) {
  return std::int64_t{kWide} * (v * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x));
}

// As block_reduce(), in two rounds of shuffles. `none` changes nothing when joined.
template <class Join>
__device__ float row_reduce(float value, float none, float* scratch, Join join) {
  for (int offset = 16; offset > 0; offset /= 2) value = join(value, __shfl_xor_sync(~0u, value, offset));
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  __syncthreads();
  if (lane == 0) scratch[threadIdx.x / 32] = value;
  __syncthreads();
  value = lane < warps ? scratch[lane] : none;
  for (int offset = 16; offset > 0; offset /= 2) value = join(value, __shfl_xor_sync(~0u, value, offset));
  return value;
}

// Two bytes of e4m3 codes, saturated; the first value in the low byte.
__device__ inline std::uint32_t e4m3_pair(float a, float b) {
  return __nv_cvt_float2_to_fp8x2(make_float2(a, b), __NV_SATFINITE, __NV_E4M3);
}

__device__ inline std::uint32_t int8_code(float value, float inverse) {
  const float code = fminf(fmaxf(rintf(__fmul_rn(value, inverse)), -128.f), 127.f);
  return static_cast<std::uint8_t>(static_cast<std::int8_t>(code));
}

// encode_row() for a row in registers; vectors beyond the columns hold zeros.
template <int kVectors>
__device__ void encode_vectors(std::int64_t row, const Encoded& out, float static_scale, float* scratch,
                               const float (&values)[kVectors][kWide]) {
  const std::int64_t first = row * out.stride;
  if (out.encoding == Encoding::kBf16) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v)
      if (wide_column(v) < out.stride)
        store_wide(static_cast<bf16*>(out.codes) + first + wide_column(v), values[v]);
    return;
  }
  float scale = static_scale, largest = 0;
  if (out.encoding != Encoding::kFp8Tensor) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v)
#pragma unroll
      for (int i = 0; i < kWide; ++i) largest = fmaxf(largest, fabsf(values[v][i]));
    largest = row_reduce(largest, 0.f, scratch, [](float a, float b) { return fmaxf(a, b); });
  }
  const bool integers = out.encoding == Encoding::kInt8Token;
  float inverse = 0;
  if (integers) {
    inverse = largest == 0 ? 0 : __fdiv_rn(127.f, largest);
    scale = __fdiv_rn(largest, 127.f);
  } else {
    if (out.encoding == Encoding::kFp8Token)
      scale = fmaxf(__fdiv_rn(largest, kE4M3Largest), 1.f / (kE4M3Largest * 512.f));
    inverse = __fdiv_rn(1.f, scale);
  }
  auto* codes = static_cast<std::uint8_t*>(out.codes) + first;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (wide_column(v) >= out.stride) continue;
    std::uint32_t words[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
      if (integers) {
        words[i / 4] |= int8_code(values[v][i], inverse) << (i % 4 * 8);
      } else if (i % 2 == 0) {
        words[i / 4] |= e4m3_pair(__fmul_rn(values[v][i], inverse), __fmul_rn(values[v][i + 1], inverse))
                        << (i % 4 * 8);
      }
    }
    *reinterpret_cast<uint2*>(codes + wide_column(v)) = {words[0], words[1]};
  }
  if (threadIdx.x == 0) out.scales[row] = scale;
}

}  // namespace bise::cuda
