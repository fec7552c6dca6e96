// Fills a RowKernels with the instances of one Simd. Include inside its target region, last.
#pragma once

#include "backend/cpu/attention_kernel.h"
#include "backend/cpu/hessian_kernel.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/norm_kernel.h"
#include "backend/cpu/rope_kernel.h"

namespace bise {

template <class Simd>
void to_bf16(const float* in, bf16* out, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += Simd::kWidth) Simd::store(out + i, Simd::load(in + i));
}

template <class Simd>
void from_bf16(const bf16* in, float* out, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + Simd::kWidth <= n; i += Simd::kWidth) Simd::store(out + i, Simd::load(in + i));
  for (; i < n; ++i) out[i] = bf16_to_float(in[i]);
}

template <class Simd>
std::unique_ptr<AttentionKernel> make_vector_attention(DType dtype) {
  if (dtype == DType::kF32) return std::make_unique<VectorAttention<Simd, float>>();
  return std::make_unique<VectorAttention<Simd, bf16>>();
}

template <class Simd>
constexpr RowKernels make_row_kernels() {
  return {add_and_sum_squares<Simd>,  scale_row<Simd>, add_scaled<Simd>,
          rotate_head<Simd>,          to_bf16<Simd>,   from_bf16<Simd>,
          add_syrk_tile<Simd>,        Simd::kTileRows, Simd::kTileVectors * Simd::kWidth,
          make_vector_attention<Simd>};
}

}  // namespace bise
