// The float32 row kernels of one instruction set. Each body stands once, as a template over simd.h's Simd;
// kernels_scalar.cpp, kernels_avx2.cpp and kernels_avx512.cpp instantiate it inside their target region.
#pragma once

#include <cstdint>
#include <memory>

#include "backend/backend.h"
#include "backend/cpu/attention.h"
#include "tensor/float_types.h"

namespace bise {

struct RowKernels {
  // norm_kernel.h
  float (*add_and_sum_squares)(float* residual, const float* delta, std::int64_t columns);
  void (*scale_row)(const float* x, float factor, const float* gain, float* out, std::int64_t columns);
  void (*add_scaled)(const float* x, float factor, float* out, std::int64_t columns);
  // gate_kernel.h
  void (*gate_columns)(const float* gates, const float* ups, float* out, std::int64_t columns);
  // rope_kernel.h
  void (*rotate_head)(float* head, const float* cosine, const float* sine, std::int64_t half);
  // Conversions of n values; n is a multiple of 16 for the first.
  void (*to_bf16)(const float* in, bf16* out, std::int64_t n);
  void (*from_bf16)(const bf16* in, float* out, std::int64_t n);
  // out = e4m3(in / scale), saturated
  void (*to_e4m3)(const float* in, float scale, e4m3* out, std::int64_t n);
  // hessian_kernel.h
  void (*add_syrk_tile)(const float* x, std::int64_t stride, std::int64_t rows, std::int64_t first_row,
                        std::int64_t first_column, std::int64_t columns, float* hessian);
  std::int64_t syrk_tile_rows, syrk_tile_columns;
  std::unique_ptr<AttentionKernel> (*make_attention)(DType dtype);
};

extern const RowKernels kScalarKernels, kAvx2Kernels, kAvx512Kernels;

// AMX has the AVX-512 row kernels.
const RowKernels& row_kernels(Isa isa);

}  // namespace bise
