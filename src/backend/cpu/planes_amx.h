// Linear layers on AMX for integer codes and a few rows of input: the codes are multiplied as they are. A row
// of the input becomes two planes of int8 (plane_input.h), so that the sums over a span of columns with one
// scale are exact integers; each is multiplied with its scales and added in float32 in the order of the
// columns, then the sum with the row's own scale:
//   out = (sum over spans: float(sum over columns: (code - zero point) * x) * scale of x * scale) * row scale
// Whatever computes them gives the same bits, so one row is multiplied by the vector units (plane_one_row.h)
// and more by the tile unit (plane_tiles.h).
#pragma once

#include "backend/cpu/linear.h"
#include "backend/cpu/linear_weight.h"

namespace bise {

// Whether amx_planes computes the layer. A row's bits differ from those of the other way.
bool takes_planes(const CpuLinearInput& in, const CpuLinearWeight& weight);

// One of `out` and `gated` is given.
void amx_planes(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                const CpuLinearWeight& weight, CpuMatrix* out, CpuLinearInput* gated);

}  // namespace bise
