// Int4 panels (int4_panels.h) in registers: codes less zero points, as operand A of warpgroup products.
#pragma once

#include <cuda_fp16.h>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/int4_panels.h"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {

// Four bf16 pairs from eight codes: 0x4300 | code is the number 128 + code, codes are offset by 8.
__device__ inline void expand_codes(std::uint32_t codes, std::uint32_t low_zero, std::uint32_t high_zero,
                                    std::uint32_t* pairs) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    std::uint32_t biased, value;
    asm("lop3.b32 %0, %1, 0x000f000f, 0x43004300, 0xea;" : "=r"(biased) : "r"(codes >> 4 * i));
    asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(value) : "r"(biased), "r"(i % 2 ? high_zero : low_zero));
    pairs[i] = value;
  }
}

__device__ inline float panel_scale(const char* scales, int index, PanelScale type) {
  switch (type) {
    case PanelScale::kBf16: return load_value(reinterpret_cast<const bf16*>(scales) + index);
    case PanelScale::kF16: return __half2float(reinterpret_cast<const __half*>(scales)[index]);
    case PanelScale::kF32: return reinterpret_cast<const float*>(scales)[index];
    case PanelScale::kNone: return 1;
  }
  return 1;
}

// Operand A of kSteps products, of the `unit`-th kSteps * 16 columns of a block. `zeros`: if there are any,
// the zero points of those columns from a thread's first row on; its second row is 8 further.
template <int kSteps>
__device__ inline void expand_unit(const char* block, int unit, int thread, bool has_zeros,
                                   const std::int8_t* zeros, std::uint32_t (&pairs)[kSteps * 4]) {
  const char* codes = block + unit * kSteps / 4 * 2048 + thread * 16 + unit * kSteps % 4 * 4;
  std::uint32_t words[kSteps];
  if constexpr (kSteps >= 4) {
#pragma unroll
    for (int i = 0; i < kSteps; i += 4) {
      const uint4 raw = *reinterpret_cast<const uint4*>(codes + i / 4 * 2048);
      words[i] = raw.x, words[i + 1] = raw.y, words[i + 2] = raw.z, words[i + 3] = raw.w;
    }
  } else {
    const uint2 raw = *reinterpret_cast<const uint2*>(codes);
    words[0] = raw.x, words[1] = raw.y;
  }
  std::uint32_t low_zero = 0x43084308, high_zero = 0x43084308;  // 136, see expand_codes()
  if (has_zeros) {
    low_zero += static_cast<std::uint32_t>(zeros[0]) * 0x10001u;
    high_zero += static_cast<std::uint32_t>(zeros[8]) * 0x10001u;
  }
#pragma unroll
  for (int step = 0; step < kSteps; ++step) expand_codes(words[step], low_zero, high_zero, pairs + 4 * step);
}

// Starts the products of what expand_unit() made with kRows rows of an input, of whose 128 columns each 64
// lie in a box, `box_bytes` apart.
template <int kRows, int kSteps>
__device__ inline void start_unit(std::uint32_t (&pairs)[kSteps * 4], int unit, const char* inputs,
                                  int box_bytes, float (&sums)[kRows / 2]) {
  hold(pairs);
  products_begin();
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const int at = unit * kSteps + step;
    RegisterProduct<kRows, false>::add(sums, pairs + 4 * step,
                                       tile_descriptor(inputs + at / 4 * box_bytes) + at % 4 * 2, step > 0);
  }
  products_commit();
}

}  // namespace bise::cuda
