// Linear layers on AMX tiles for many rows of input. Internal to the linear layers.
#pragma once

#include "backend/cpu/linear.h"
#include "backend/cpu/linear_weight.h"

namespace bise {

// One of `out` and `gated` is given: out[r, :] = W x[r, :] + bias, or the gated product's encoding.
void amx_many_rows(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                   const CpuLinearWeight& weight, CpuMatrix* out, CpuLinearInput* gated);

}  // namespace bise
