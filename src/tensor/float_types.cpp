#include "tensor/float_types.h"

#include <array>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/error.h"

namespace bise {
namespace {

std::array<float, 256> make_e4m3_table() {
  std::array<float, 256> table{};
  for (int code = 0; code < 256; ++code) {
    const int exponent = (code >> 3) & 15, mantissa = code & 7;
    float value = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    if (exponent == 15 && mantissa == 7) value = std::nanf("");
    table[static_cast<std::size_t>(code)] = (code & 128) ? -value : value;
  }
  return table;
}

template <class From, class Convert>
void convert_all(const Tensor& tensor, std::span<float> out, Convert convert) {
  const From* values = tensor.data<From>();
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = convert(values[i]);
}

}  // namespace

float f16_to_float(f16 value) {
  const std::uint32_t sign = std::uint32_t{value & 0x8000u} << 16;
  const std::uint32_t exponent = (value >> 10) & 31u, mantissa = value & 1023u;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent == 0) {
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -magnitude : magnitude;
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
}

f16 float_to_f16(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<f16>((bits >> 16) & 0x8000u);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return sign | 0x7e00u;
  if (magnitude >= 65520.0f) return sign | 0x7c00u;
  if (magnitude < std::ldexp(1.0f, -14))  // subnormal: a multiple of 2^-24
    return sign | static_cast<f16>(std::nearbyint(std::ldexp(magnitude, 24)));
  const std::uint32_t absolute = bits & 0x7fffffffu;
  const std::uint32_t rounded = absolute + 0xfffu + ((absolute >> 13) & 1u);
  return sign | static_cast<f16>((rounded >> 13) - (112u << 10));
}

float e4m3_to_float(e4m3 value) {
  static const std::array<float, 256> table = make_e4m3_table();
  return table[value];
}

e4m3 float_to_e4m3(float value) {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<e4m3>((bits >> 24) & 0x80u);
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return 0x7f;
  if (magnitude >= kE4M3Max) return sign | 0x7e;
  if (magnitude < std::ldexp(1.0f, -6))  // subnormal: a multiple of 2^-9
    return sign | static_cast<e4m3>(std::nearbyint(std::ldexp(magnitude, 9)));
  const std::uint32_t absolute = bits & 0x7fffffffu;
  const std::uint32_t rounded = absolute + 0x7ffffu + ((absolute >> 20) & 1u);
  return sign | static_cast<e4m3>((rounded >> 20) - (120u << 3));
}

void to_float(const Tensor& tensor, std::span<float> out) {
  check(out.size() == static_cast<std::size_t>(tensor.elements()), "the output holds every element");
  switch (tensor.dtype()) {
    case DType::kF32:
      if (!out.empty()) std::memcpy(out.data(), tensor.bytes().data(), out.size_bytes());
      return;
    case DType::kF64: return convert_all<double>(tensor, out, [](double v) { return static_cast<float>(v); });
    case DType::kF16: return convert_all<f16>(tensor, out, f16_to_float);
    case DType::kBF16: return convert_all<bf16>(tensor, out, bf16_to_float);
    case DType::kF8E4M3: return convert_all<e4m3>(tensor, out, e4m3_to_float);
    default:
      throw Error("a tensor has the wrong dtype")
          .expected("a float type")
          .got(std::string(dtype_name(tensor.dtype())));
  }
}

Tensor from_float(std::span<const float> values, DType dtype, Shape shape) {
  Tensor tensor = Tensor::allocate(dtype, std::move(shape));
  check(values.size() == static_cast<std::size_t>(tensor.elements()), "the values fit the shape");
  const auto fill = [&](auto* out, auto convert) {
    for (std::size_t i = 0; i < values.size(); ++i) out[i] = convert(values[i]);
  };
  switch (dtype) {
    case DType::kF32: fill(tensor.mutable_data<float>(), [](float v) { return v; }); break;
    case DType::kF16: fill(tensor.mutable_data<f16>(), float_to_f16); break;
    case DType::kBF16: fill(tensor.mutable_data<bf16>(), float_to_bf16); break;
    case DType::kF8E4M3: fill(tensor.mutable_data<e4m3>(), float_to_e4m3); break;
    default: check(false, "from_float makes float tensors"); break;
  }
  return tensor;
}

}  // namespace bise
