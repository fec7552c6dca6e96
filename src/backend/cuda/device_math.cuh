// What the kernels share: vectors of values in registers, reductions over a block, the encoders.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include <cstdint>

#include "backend/cuda/cuda_kernels.h"

namespace bise::cuda {

using bf16 = __nv_bfloat16;

__device__ inline float load_value(const float* p) {
  return *p;
}
__device__ inline float load_value(const bf16* p) {
  return __bfloat162float(*p);
}
__device__ inline void store_value(float* p, float value) {
  *p = value;
}
__device__ inline void store_value(bf16* p, float value) {
  *p = __float2bfloat16_rn(value);
}

// Over the block; every thread gets the result. `scratch` holds 32 floats; a barrier stands before its reuse.
template <class Join>
__device__ float block_reduce(float value, float* scratch, Join join) {
  for (int offset = 16; offset > 0; offset /= 2) value = join(value, __shfl_xor_sync(~0u, value, offset));
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[warp] = value;
  __syncthreads();
  value = scratch[0];
  for (int i = 1; i < warps; ++i) value = join(value, scratch[i]);
  return value;
}
__device__ inline float block_sum(float value, float* scratch) {
  return block_reduce(value, scratch, [](float a, float b) { return a + b; });
}
__device__ inline float block_max(float value, float* scratch) {
  return block_reduce(value, scratch, [](float a, float b) { return fmaxf(a, b); });
}

// silu(gate) * up. Exponential and reciprocal of the special function unit: a relative error of some 2^-21,
// well under what any encoding rounds.
__device__ inline float gate_times_up(float gate, float up) {
  float exponential, sigmoid;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(exponential) : "f"(gate * -1.44269504f));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(sigmoid) : "f"(1.f + exponential));
  return gate * sigmoid * up;
}

constexpr float kE4M3Largest = 448;

__device__ inline __nv_fp8_storage_t to_e4m3(float value) {
  return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
}
__device__ inline float from_e4m3(__nv_fp8_storage_t code) {
  return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
}

// A KV cache's e4m3 codes.
__device__ inline float load_value(const std::uint8_t* p) {
  return from_e4m3(*p);
}
__device__ inline void store_value(std::uint8_t* p, float value) {
  *p = to_e4m3(value);
}

// Encodes one row by one block. value(c) gives column c and is called twice for the dynamic encodings. Rules
// as in backend/reference/encode.cpp.
template <class Value>
__device__ void encode_row(std::int64_t row, const Encoded& out, float static_scale, float* scratch,
                           Value value) {
  const std::int64_t first = row * out.stride;
  if (out.encoding == Encoding::kBf16) {
    bf16* codes = static_cast<bf16*>(out.codes) + first;
    for (std::int64_t c = threadIdx.x; c < out.stride; c += blockDim.x)
      codes[c] = c < out.columns ? __float2bfloat16_rn(value(c)) : __float2bfloat16_rn(0.f);
    return;
  }
  float scale = static_scale, largest = 0;
  if (out.encoding != Encoding::kFp8Tensor) {
    for (std::int64_t c = threadIdx.x; c < out.columns; c += blockDim.x)
      largest = fmaxf(largest, fabsf(value(c)));
    largest = block_max(largest, scratch);
  }
  auto* codes = static_cast<std::uint8_t*>(out.codes) + first;
  if (out.encoding == Encoding::kInt8Token) {
    const float inverse = largest == 0 ? 0 : __fdiv_rn(127.f, largest);
    scale = __fdiv_rn(largest, 127.f);
    for (std::int64_t c = threadIdx.x; c < out.stride; c += blockDim.x) {
      const float code = c < out.columns ? rintf(__fmul_rn(value(c), inverse)) : 0.f;
      codes[c] = static_cast<std::uint8_t>(static_cast<std::int8_t>(fminf(fmaxf(code, -128.f), 127.f)));
    }
  } else {
    if (out.encoding == Encoding::kFp8Token)
      scale = fmaxf(__fdiv_rn(largest, kE4M3Largest), 1.f / (kE4M3Largest * 512.f));
    const float inverse = __fdiv_rn(1.f, scale);
    for (std::int64_t c = threadIdx.x; c < out.stride; c += blockDim.x)
      codes[c] = c < out.columns ? to_e4m3(__fmul_rn(value(c), inverse)) : std::uint8_t{0};
  }
  if (threadIdx.x == 0) out.scales[row] = scale;
}

// Calls body(const T*) with the values' type.
template <class Body>
void with_type(Values values, Body body) {
  if (values.type == Float::kBf16)
    body(static_cast<bf16*>(values.data));
  else
    body(static_cast<float*>(values.data));
}

// The same with the type of a KV cache; e4m3 codes are bytes.
template <class Body>
void with_cache_type(Float type, Body body) {
  if (type == Float::kE4M3)
    body(static_cast<std::uint8_t*>(nullptr));
  else
    with_type({nullptr, type}, body);
}

// Of a block that has a row to itself: about four values a thread.
inline unsigned threads_for(std::int64_t columns) {
  unsigned threads = 128;
  while (threads < 1024 && threads * 4 < columns) threads *= 2;
  return threads;
}

inline unsigned blocks_for(std::int64_t count, int threads) {
  return static_cast<unsigned>((count + threads - 1) / threads);
}

}  // namespace bise::cuda
