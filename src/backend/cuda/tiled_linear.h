// Linear layers of many rows by the tensor cores, whose weight has the operands' own type (bf16 with bf16,
// e4m3 with e4m3, int8 with int8), and which leave what the next operation wants instead of the sums: gate
// and up joined, or queries turned and keys and values in the cache. See tiled_kernel.cuh.
#pragma once

#include "backend/cuda/cuda_kernels.h"

namespace bise::cuda {

// What becomes of the sums.
enum class TiledResult { kValues, kGated, kQkv };

struct TiledLinear {
  Encoded in;                            // of the weight's type; its scales may be null
  std::int64_t rows = 0;                 // of the input and the output
  const void* weight = nullptr;          // [weight_rows, in.stride]
  std::int64_t weight_rows = 0;          // kGated: of gate, then of up
  const float* weight_scales = nullptr;  // [weight_rows] or null
  void* out = nullptr;                   // bf16 [rows, weight_rows]; kGated: silu(gate) * up, half as wide
};

// kQkv: heads of queries, keys and values. Of `out` the queries' columns are written.
struct TiledHeads {
  std::int64_t num_heads = 0;
  const float* angles = nullptr;  // rope_angles()
  StepView step;
  std::int64_t group = 0;
  CacheView cache;  // bf16
};
constexpr std::int64_t kTiledHeadDim = 128;

// Whether the widths suit it.
bool supports_tiled(std::int64_t weight_rows, TiledResult result);
// `heads` for kQkv alone.
void tiled_linear(const TiledLinear& linear, TiledResult result, const TiledHeads& heads,
                  cudaStream_t stream);

}  // namespace bise::cuda
