// How weights become codes: the two roundings (spec/quantization.md sections 0.3 and 3.1).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tensor/float_types.h"
#include "tensor/scheme.h"

namespace bise {

enum class Rounding {
  kFloat32,    // every step in float32; only the stored scale is rounded to the model's type
  kReference,  // every step rounded to the model's type, as llm-compressor computes on a CPU
};

// Rounds to the type that scales are stored in: the model's own. Pure values; any thread.
class Arithmetic {
 public:
  // `model_dtype` is F32, F16 or BF16.
  Arithmetic(DType model_dtype, Rounding rounding) : dtype_(model_dtype), rounding_(rounding) {}

  DType dtype() const { return dtype_; }
  Rounding rounding() const { return rounding_; }

  // `value` as it is stored in the checkpoint.
  float stored(float value) const {
    switch (dtype_) {
      case DType::kBF16: return round_to_bf16(value);
      case DType::kF16: return f16_to_float(float_to_f16(value));
      default: return value;
    }
  }
  // An intermediate result.
  float step(float value) const { return rounding_ == Rounding::kReference ? stored(value) : value; }

  // The smallest x with 1 + x > 1: the scale of a group that is all zero.
  float epsilon() const {
    return dtype_ == DType::kBF16 ? 0x1p-7f : dtype_ == DType::kF16 ? 0x1p-10f : 0x1p-23f;
  }

 private:
  DType dtype_;
  Rounding rounding_;
};

// Code and value of single weights under a scheme with 2 to 8 bit integers or e4m3.
class Coder {
 public:
  Coder(const Scheme& scheme, Arithmetic arithmetic)
      : arithmetic_(arithmetic),
        is_float_(scheme.type == WeightType::kFloat),
        lowest_(is_float_ ? -kE4M3Max : -static_cast<float>(1 << (scheme.num_bits - 1))),
        highest_(is_float_ ? kE4M3Max : -lowest_ - 1) {}

  Coder with_rounding(Rounding rounding) const {
    Coder coder = *this;
    coder.arithmetic_ = Arithmetic(arithmetic_.dtype(), rounding);
    return coder;
  }

  float lowest() const { return lowest_; }
  float highest() const { return highest_; }
  const Arithmetic& arithmetic() const { return arithmetic_; }

  // Integers: rne(clamp(w / scale + zero_point)), as its two's-complement byte; floats: e4m3 of w / scale.
  std::uint8_t encode(float weight, float scale, float zero_point) const {
    const float quotient = arithmetic_.step(weight / scale);
    if (is_float_) return float_to_e4m3(std::clamp(quotient, lowest_, highest_));
    const float shifted = arithmetic_.step(quotient + zero_point);
    return static_cast<std::uint8_t>(
        static_cast<std::int8_t>(std::nearbyint(std::clamp(shifted, lowest_, highest_))));
  }

  float decode(std::uint8_t code, float scale, float zero_point) const {
    const float level = is_float_ ? e4m3_to_float(code) : static_cast<float>(static_cast<std::int8_t>(code));
    return arithmetic_.step((level - zero_point) * scale);
  }

 private:
  Arithmetic arithmetic_;
  bool is_float_;
  float lowest_, highest_;
};

}  // namespace bise
