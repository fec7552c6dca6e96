// Linear layers on AVX-512 with VNNI for integer codes that are no int8 product: they are multiplied as they
// are by planes of the input, for any number of rows, as planes_amx.h has it for a few.
#pragma once

#include "backend/cpu/linear.h"
#include "backend/cpu/linear_weight.h"

namespace bise {

// weight.plane_span() is not 0. One of `out` and `gated` is given.
void avx512_planes(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                   const CpuLinearWeight& weight, CpuMatrix* out, CpuLinearInput* gated);

}  // namespace bise
