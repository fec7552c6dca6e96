// A row of a matrix in the registers of one block, 8 values a vector: vector v of thread t holds the columns
// from 8 * (v * threads + t). Rows pass through device memory once, in accesses of 16 bytes. For widths that
// are multiples of 8 and not too large; encode_row() of device_math.cuh takes the others.
#pragma once

#include <algorithm>
#include <cfloat>

#include "backend/cuda/device_math.cuh"

namespace bise::cuda {

constexpr int kWide = 8, kMostVectors = 4, kMostRowThreads = 1024;

struct RowShape {
  int vectors = 0;  // of a thread; 0: the row does not fit
  unsigned threads = 0;
};
inline RowShape row_shape(std::int64_t columns, std::int64_t stride,
                          std::int64_t most_threads = kMostRowThreads) {
  const std::int64_t all = stride / kWide, vectors = (all + most_threads - 1) / most_threads;
  if (columns % kWide != 0 || vectors > kMostVectors) return {};
  return {static_cast<int>(vectors), static_cast<unsigned>(((all + vectors - 1) / vectors + 31) / 32 * 32)};
}
// As few threads as hold a row, but for short ones.
inline std::int64_t short_row_threads(std::int64_t stride) {
  constexpr std::int64_t kLeast = 128;
  return std::min<std::int64_t>(kMostRowThreads, std::max(kLeast, stride / kWide / kMostVectors));
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

// A vector as it lies in memory: of bf16, half the registers.
template <class T>
struct alignas(16) WideRaw {
  T values[kWide];
};

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
__device__ inline void load_wide(const std::int32_t* p, float (&values)[kWide]) {
  const int4 a = *reinterpret_cast<const int4*>(p), b = *reinterpret_cast<const int4*>(p + 4);
  const int integers[kWide] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
  for (int i = 0; i < kWide; ++i) values[i] = static_cast<float>(integers[i]);
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

// A byte of an int8 code. Adding 1.5 * 2^23 rounds to the nearest, ties to even, and leaves the integer in
// the low bits. `inverse` is 127 by the row's largest: no product is beyond 127.5.
__device__ inline std::uint32_t int8_code(float value, float inverse) {
  return __float_as_uint(__fadd_rn(__fmul_rn(value, inverse), 12582912.f));
}
__device__ inline std::uint32_t int8_codes(const float* values, float inverse) {
  const std::uint32_t low = __byte_perm(int8_code(values[0], inverse), int8_code(values[1], inverse), 0x0040);
  const std::uint32_t high =
      __byte_perm(int8_code(values[2], inverse), int8_code(values[3], inverse), 0x0040);
  return __byte_perm(low, high, 0x5410);
}
__device__ inline std::uint32_t e4m3_codes(const float* values, float inverse) {
  const std::uint32_t low = e4m3_pair(__fmul_rn(values[0], inverse), __fmul_rn(values[1], inverse));
  const std::uint32_t high = e4m3_pair(__fmul_rn(values[2], inverse), __fmul_rn(values[3], inverse));
  return __byte_perm(low, high, 0x5410);
}

// encode_row() for a row in registers, of which load(v, values) gives vector v; vectors beyond the columns
// are zeros.
template <int kVectors, class Load>
__device__ void encode_loaded(std::int64_t row, const Encoded& out, float static_scale, float* scratch,
                              Load load) {
  float values[kWide];
  const std::int64_t first = row * out.stride;
  if (out.encoding == Encoding::kBf16) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      load(v, values);
      if (wide_column(v) < out.stride)
        store_wide(static_cast<bf16*>(out.codes) + first + wide_column(v), values);
    }
    return;
  }
  float scale = static_scale, largest = 0;
  if (out.encoding != Encoding::kFp8Tensor) {
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      load(v, values);
#pragma unroll
      for (int i = 0; i < kWide; ++i) largest = fmaxf(largest, fabsf(values[i]));
    }
    largest = row_reduce(largest, 0.f, scratch, [](float a, float b) { return fmaxf(a, b); });
  }
  const bool integers = out.encoding == Encoding::kInt8Token;
  float inverse = 0;
  if (integers) {
    inverse = largest == 0 ? 0 : fminf(__fdiv_rn(127.f, largest), FLT_MAX);
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
    load(v, values);
    const std::uint32_t words[2] = {
        integers ? int8_codes(values, inverse) : e4m3_codes(values, inverse),
        integers ? int8_codes(values + 4, inverse) : e4m3_codes(values + 4, inverse)};
    *reinterpret_cast<uint2*>(codes + wide_column(v)) = {words[0], words[1]};
  }
  if (threadIdx.x == 0) out.scales[row] = scale;
}
template <int kVectors>
__device__ void encode_vectors(std::int64_t row, const Encoded& out, float static_scale, float* scratch,
                               const float (&vectors)[kVectors][kWide]) {
  encode_loaded<kVectors>(row, out, static_scale, scratch, [&](int v, float(&values)[kWide]) {
#pragma unroll
    for (int i = 0; i < kWide; ++i) values[i] = vectors[v][i];
  });
}

}  // namespace bise::cuda
