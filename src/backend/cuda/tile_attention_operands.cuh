// Products of tile_attention.cu and their operands: where these stand in tiles of shared memory, and how
// values and codes become pairs of them.
#pragma once

#include <type_traits>

#include "backend/cuda/attention_product.cuh"
#include "backend/cuda/tile_attention_work.cuh"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {

template <class L, bool kTransposed>
using TileProduct =
    std::conditional_t<L::kConverts, HalfProduct<kTransposed>, RegisterProduct<64, kTransposed>>;

// Where 16 bytes of row `row` and column chunk `chunk` of 8 values stand in a tile, as the copy engine would
// swizzle them.
__device__ inline int swizzled(int row, int chunk) {
  return chunk / 8 * kTileKeys * 128 + row * 128 + ((chunk % 8 ^ row % 8) << 4);
}

__device__ inline float2 load_two(const float* p) {
  return *reinterpret_cast<const float2*>(p);
}
__device__ inline float2 load_two(const bf16* p) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(p));
}

// Two operands of products: bf16 as the cache, float16 with codes, which holds them as they are.
template <class L>
__device__ inline std::uint32_t operand_pair(float a, float b) {
  if constexpr (L::kConverts) {
    const __half2 pair = __floats2half2_rn(a, b);
    return reinterpret_cast<const std::uint32_t&>(pair);
  } else {
    return pair_of(a, b);
  }
}

// Eight e4m3 codes as float16; exact.
__device__ inline uint4 eight_values(uint2 codes) {
  const auto two = [](std::uint32_t code) {
    const __half2_raw pair = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(code), __NV_E4M3);
    return reinterpret_cast<const std::uint32_t&>(pair);
  };
  return {two(codes.x & 0xffff), two(codes.x >> 16), two(codes.y & 0xffff), two(codes.y >> 16)};
}

}  // namespace bise::cuda
