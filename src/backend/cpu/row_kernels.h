// Fills a RowKernels with the instances of one Simd. Include inside its target region, last.
#pragma once

#include "backend/cpu/attention_kernel.h"
#include "backend/cpu/gate_kernel.h"
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

// The conversion of tensor/float_types.h without branches, for the compiler to put into vectors.
template <class Simd>
void to_e4m3(const float* in, float scale, e4m3* out, std::int64_t n) {
  constexpr std::uint32_t kLargest = 0x43e00000, kSmallestNormal = 0x3c800000, kInfinity = 0x7f800000;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto bits = __builtin_bit_cast(std::uint32_t, in[i] / scale);
    const std::uint32_t magnitude = bits & 0x7fffffffu;
    const std::uint32_t bounded = magnitude > kLargest ? kLargest : magnitude;
    // The exponent's bias goes from 127 to 7.
    const std::uint32_t normal = ((bounded + 0x7ffffu + ((bounded >> 20) & 1u)) >> 20) - (120u << 3);
    // Below 2^-6: a multiple of 2^-9, which is the unit in the last place of 2^14.
    const float shifted = __builtin_bit_cast(float, bounded) + 0x1p14f;
    const std::uint32_t subnormal = __builtin_bit_cast(std::uint32_t, shifted) & 0xffu;
    const std::uint32_t code = bounded < kSmallestNormal ? subnormal : normal;
    out[i] = static_cast<e4m3>((magnitude > kInfinity ? 0x7fu : code) | (bits >> 24 & 0x80u));
  }
}

template <class Simd>
std::unique_ptr<AttentionKernel> make_vector_attention(DType dtype) {
  if (dtype == DType::kF8E4M3) return std::make_unique<VectorAttention<Simd, e4m3>>();
  if (dtype == DType::kF32) return std::make_unique<VectorAttention<Simd, float>>();
  return std::make_unique<VectorAttention<Simd, bf16>>();
}

template <class Simd>
constexpr RowKernels make_row_kernels() {
  return {add_and_sum_squares<Simd>,
          scale_row<Simd>,
          add_scaled<Simd>,
          gate_columns<Simd>,
          rotate_head<Simd>,
          to_bf16<Simd>,
          from_bf16<Simd>,
          to_e4m3<Simd>,
          add_syrk_tile<Simd>,
          Simd::kTileRows,
          Simd::kTileVectors * Simd::kWidth,
          make_vector_attention<Simd>};
}

}  // namespace bise
