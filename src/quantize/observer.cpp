#include "quantize/observer.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"

namespace bise {
namespace {

struct Range {
  float low = 0, high = 0;  // zero is always inside
};

Range range_of(std::span<const float> values) {
  Range range;
  for (const float value : values) {
    range.low = std::min(range.low, value);
    range.high = std::max(range.high, value);
  }
  return range;
}

// Width of the code range over 2 (7.5, 127.5, 448), the divisor of a symmetric scale.
float half_width(const Scheme& scheme) {
  return scheme.type == WeightType::kFloat ? kE4M3Max : static_cast<float>((1 << scheme.num_bits) - 1) / 2;
}

float nonzero(float scale, const Arithmetic& arithmetic) {
  return scale == 0 ? arithmetic.epsilon() : scale;
}

float symmetric_scale(Range range, const Scheme& scheme, const Arithmetic& arithmetic) {
  return nonzero(arithmetic.stored(std::max(-range.low, range.high) / half_width(scheme)), arithmetic);
}

float asymmetric_scale(Range range, const Scheme& scheme, const Arithmetic& arithmetic) {
  const float width = arithmetic.step(range.high - range.low);
  return nonzero(arithmetic.stored(width / (2 * half_width(scheme))), arithmetic);
}

std::int8_t zero_point_of(Range range, float scale, const Coder& coder) {
  const Arithmetic& arithmetic = coder.arithmetic();
  const float shifted = arithmetic.step(coder.lowest() - arithmetic.step(range.low / scale));
  return static_cast<std::int8_t>(std::nearbyint(std::clamp(shifted, coder.lowest(), coder.highest())));
}

}  // namespace

std::int64_t columns_per_group(const Scheme& scheme, std::int64_t columns) {
  return scheme.strategy == Strategy::kGroup ? std::min(scheme.group_size, columns) : columns;
}

QuantParameters observe_minmax(std::span<const float> weight, std::int64_t rows, std::int64_t columns,
                               const Scheme& scheme, const Arithmetic& arithmetic) {
  check(static_cast<std::int64_t>(weight.size()) == rows * columns, "the weight has rows * columns values");
  check(scheme.strategy == Strategy::kChannel || scheme.strategy == Strategy::kGroup,
        "minmax scales are per channel or per group");
  const std::int64_t width = columns_per_group(scheme, columns);
  if (width <= 0 || columns % width != 0)
    throw Error("group size {} does not divide {} columns", width, columns);

  const Coder coder(scheme, arithmetic);
  QuantParameters parameters;
  parameters.rows = rows;
  parameters.groups = columns / width;
  for (std::int64_t group = 0; group < rows * parameters.groups; ++group) {
    const Range range =
        range_of(weight.subspan(static_cast<std::size_t>(group * width), static_cast<std::size_t>(width)));
    const float scale = scheme.symmetric ? symmetric_scale(range, scheme, arithmetic)
                                         : asymmetric_scale(range, scheme, arithmetic);
    parameters.scale.push_back(scale);
    if (!scheme.symmetric) parameters.zero_point.push_back(zero_point_of(range, scale, coder));
  }
  return parameters;
}

}  // namespace bise
