// Linear layers of few rows whose weight has the operands' own type, where its rows divide well among the
// multiprocessors: each block multiplies whole rows of the weight, so no block waits for another.
#pragma once

#include <cuda.h>

#include "backend/cuda/streamed_linear.h"

namespace bise::cuda {

// The rows of a weight that each block takes; 0 where streamed_linear() divides the work better.
int sliced_tile_rows(std::int64_t weight_rows, std::int64_t row_bytes);

// As streamed_linear() for up to kStreamedRows rows, without a workspace and panels. A box of weight_tiles
// has sliced_tile_rows() rows, half as many where gated; of input_tiles input_tile_rows().
void sliced_linear(const StreamedLinear& task, int tile_rows, cudaStream_t stream);

}  // namespace bise::cuda
