// Conversions between float32 and the 16- and 8-bit float formats, one value or a whole run. All roundings
// are to nearest, ties to even. Fast paths for one processor live in backend/cpu; these are exact and
// portable.
#pragma once

#include <bit>
#include <cstdint>
#include <span>

#include "tensor/tensor.h"

namespace bise {

using bf16 = std::uint16_t;  // bit pattern of a bfloat16
using f16 = std::uint16_t;   // bit pattern of an IEEE binary16
using e4m3 = std::uint8_t;   // bit pattern of a float8 e4m3fn (OCP OFP8): no infinity, largest 448

constexpr float kE4M3Max = 448.0f;

inline float bf16_to_float(bf16 value) {
  return std::bit_cast<float>(std::uint32_t{value} << 16);
}

inline bf16 float_to_bf16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<bf16>((bits >> 16) | 0x40u);  // quiet NaN
  return static_cast<bf16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// `value` rounded to the nearest bfloat16: bf(x) of spec/quantization.md.
inline float round_to_bf16(float value) {
  return bf16_to_float(float_to_bf16(value));
}

float f16_to_float(f16 value);
f16 float_to_f16(float value);

float e4m3_to_float(e4m3 value);
// Values beyond +-448 saturate; NaN stays NaN (0x7f).
e4m3 float_to_e4m3(float value);

// `tensor`'s elements as float32; any float dtype. `out` holds tensor.elements() values.
void to_float(const Tensor& tensor, std::span<float> out);
// A new tensor of `dtype` (F32, F16, BF16 or F8_E4M3) with the rounded values.
Tensor from_float(std::span<const float> values, DType dtype, Shape shape);

}  // namespace bise
