// How the input of a linear layer is quantized: vLLM's rules (spec/quantization.md section 3.4).
#include <algorithm>
#include <cmath>

#include "backend/reference/reference_backend.h"
#include "base/check.h"
#include "tensor/float_types.h"

namespace bise {
namespace {

constexpr float kSmallestFp8Scale = 1.0f / (kE4M3Max * 512.0f);

float absolute_maximum(std::span<const float> values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::fabs(value));
  return largest;
}

float round_to_e4m3(float value) {
  return e4m3_to_float(float_to_e4m3(value));
}

}  // namespace

ReferenceLinearInput::ReferenceLinearInput(std::int64_t max_rows, std::int64_t columns)
    : LinearInput(max_rows, columns),
      codes(static_cast<std::size_t>(max_rows * columns)),
      scales(static_cast<std::size_t>(max_rows), 1.0f) {}

void ReferenceLinearInput::resize(std::int64_t rows, InputType type) {
  check(rows >= 0 && rows <= max_rows_, "the rows fit the linear input");
  rows_ = rows;
  type_ = type;
}

void ReferenceLinearInput::encode_row(std::int64_t row, std::span<const float> values,
                                      InputEncoding encoding) {
  check(static_cast<std::int64_t>(values.size()) == columns_, "the values fill the row");
  float* out = codes.data() + row * columns_;
  float& scale = scales[static_cast<std::size_t>(row)];
  const auto fill = [&](auto convert) { std::transform(values.begin(), values.end(), out, convert); };
  switch (encoding.type) {
    case InputType::kNone: scale = 1; return fill([](float value) { return value; });
    case InputType::kInt8Token: {
      const float largest = absolute_maximum(values);
      const float inverse = largest == 0 ? 0 : 127.0f / largest;
      scale = largest / 127.0f;
      return fill([=](float value) { return std::clamp(std::nearbyint(value * inverse), -128.0f, 127.0f); });
    }
    case InputType::kFp8Token: {
      scale = std::max(absolute_maximum(values) / kE4M3Max, kSmallestFp8Scale);
      const float inverse = 1.0f / scale;
      return fill([=](float value) { return round_to_e4m3(value * inverse); });
    }
    case InputType::kFp8Tensor: {
      check(encoding.scale > 0, "a static input scale is positive");
      scale = encoding.scale;
      const float inverse = 1.0f / scale;
      return fill([=](float value) { return round_to_e4m3(value * inverse); });
    }
  }
}

float ReferenceLinearInput::decoded(std::int64_t row, std::int64_t column) const {
  return codes[static_cast<std::size_t>(row * columns_ + column)] * scales[static_cast<std::size_t>(row)];
}

}  // namespace bise
