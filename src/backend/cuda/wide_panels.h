// Linear layers of int4 panels with more rows than kStreamedRows: bound by the products as much as by reading
// the weight. See wide_panels.cu.
#pragma once

#include "backend/cuda/streamed_linear.h"

namespace bise::cuda {

// Panels whose groups have a multiple of 128 columns and whose scales are bf16, or which have one scale a
// row.
bool supports_wide_panels(const Weight& weight, std::int64_t rows, bool gated);
// Rows of a box of the input's tile map.
int wide_box_rows(std::int64_t rows);
// `task` has no weight_tiles.
void wide_panels(const StreamedLinear& task, cudaStream_t stream);

}  // namespace bise::cuda
