// Linear layers of many rows of int8 codes with int8 codes, which leave what the next operation wants instead
// of the sums: gate and up joined, or queries turned and keys and values in the cache. See tiled_linear.cu.
#pragma once

#include "backend/cuda/cuda_kernels.h"

namespace bise::cuda {

struct TiledLinear {
  Encoded in;                    // kInt8Token
  std::int64_t rows = 0;         // of the input and the output
  const void* weight = nullptr;  // [weight_rows, in.stride]
  std::int64_t weight_rows = 0;
  const float* weight_scales = nullptr;  // [weight_rows]
  void* out = nullptr;                   // bf16
};
// Whether the width suits it.
bool supports_tiled(std::int64_t weight_rows);

// The weight has the rows of gate and then of up: out [rows, weight_rows / 2] = silu(gate) * up.
void tiled_gated(const TiledLinear& linear, cudaStream_t stream);

// The weight has heads of queries, keys and values; out [rows, weight_rows], of which the queries' columns
// are written.
constexpr std::int64_t kTiledHeadDim = 128;
struct TiledHeads {
  std::int64_t num_heads = 0;
  const float* angles = nullptr;  // rope_angles()
  StepView step;
  std::int64_t group = 0;
  CacheView cache;  // bf16
};
void tiled_qkv(const TiledLinear& linear, const TiledHeads& heads, cudaStream_t stream);

}  // namespace bise::cuda
