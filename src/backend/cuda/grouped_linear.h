// The linear layers of all experts in one launch, for steps whose rows wait for the weights to be read: bf16
// with bf16, e4m3 with e4m3, int8 with int8, int4 panels with bf16. How many rows an expert has is read on
// the device, so nothing waits for the host and the launch can be recorded; experts without rows cost
// nothing. See grouped_kernel.cuh.
#pragma once

#include <cuda.h>

#include "backend/cuda/experts_route.h"

namespace bise::cuda {

// Rows of a step up to which cuBLASLt, expert by expert, is not faster.
constexpr std::int64_t kGroupedRows = 512;

struct GroupedLinear {
  const Weight* weights[kMostExperts] = {};  // of one format and shape, without bias
  Encoded in;                                // [pairs, columns]
  std::int64_t rows = 0, pairs = 0;          // of the step; an expert has at most `rows` pairs
  bool gated = false;                        // the weight joins gate and up, out is silu(gate) * up
  void* out = nullptr;                       // [pairs, weight rows] float32; gated: half as many, bf16
  std::int64_t out_stride = 0;
};

// Whether the format is there; `gated` weights have halves of whole 8 rows, of int4 panels of whole 64.
bool supports_grouped(const Weight& weight, bool gated);
// Whether two weights may be in one launch.
bool same_grouped_layout(const Weight& a, const Weight& b);
void grouped_linear(const GroupedLinear& linear, const Routing& routing, cudaStream_t stream);

// How the copy engine finds tiles of a weight that joins gate and up: `tile_rows` rows of 128 bytes, in turn
// 8 of gate and the 8 of up of the same columns of the output. Coordinates: column, 0, 0, row of the output
// / 8.
CUtensorMap gated_tile_map(const void* data, int value_bytes, std::int64_t half_rows, std::int64_t stride,
                           int tile_rows);

}  // namespace bise::cuda
