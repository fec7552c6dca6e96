#include "quantize/observer.h"

#include <algorithm>

#include "base/check.h"
#include "base/error.h"

namespace bise {
namespace {

ValueRange range_of(std::span<const float> values) {
  ValueRange range;
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

float symmetric_scale(ValueRange range, const Scheme& scheme, const Arithmetic& arithmetic) {
  return nonzero(arithmetic.stored(std::max(-range.low, range.high) / half_width(scheme)), arithmetic);
}

float asymmetric_scale(ValueRange range, const Scheme& scheme, const Arithmetic& arithmetic) {
  const float width = arithmetic.step(range.high - range.low);
  return nonzero(arithmetic.stored(width / (2 * half_width(scheme))), arithmetic);
}

std::int8_t zero_point_of(ValueRange range, float scale, const Coder& coder) {
  const Arithmetic& arithmetic = coder.arithmetic();
  const float shifted = arithmetic.step(coder.lowest() - arithmetic.step(range.low / scale));
  return static_cast<std::int8_t>(std::nearbyint(std::clamp(shifted, coder.lowest(), coder.highest())));
}

QuantParameters empty_parameters(std::int64_t rows, std::int64_t groups, const Scheme& scheme) {
  QuantParameters parameters;
  parameters.rows = rows;
  parameters.groups = groups;
  parameters.scale.resize(static_cast<std::size_t>(rows * groups));
  if (!scheme.symmetric) parameters.zero_point.resize(parameters.scale.size());
  return parameters;
}

// Sets scale and zero point of one group.
class Parameters {
 public:
  Parameters(const Scheme& scheme, const Arithmetic& arithmetic, QuantParameters& parameters)
      : scheme_(scheme), coder_(scheme, arithmetic), parameters_(parameters) {}

  void operator()(std::int64_t group, ValueRange range) const {
    const auto at = static_cast<std::size_t>(group);
    const float scale = scheme_.symmetric ? symmetric_scale(range, scheme_, coder_.arithmetic())
                                          : asymmetric_scale(range, scheme_, coder_.arithmetic());
    parameters_.scale[at] = scale;
    if (!scheme_.symmetric) parameters_.zero_point[at] = zero_point_of(range, scale, coder_);
  }

 private:
  const Scheme& scheme_;
  Coder coder_;
  QuantParameters& parameters_;
};

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

  QuantParameters parameters = empty_parameters(rows, columns / width, scheme);
  const Parameters fill(scheme, arithmetic, parameters);
  for (std::int64_t group = 0; group < rows * parameters.groups; ++group)
    fill(group,
         range_of(weight.subspan(static_cast<std::size_t>(group * width), static_cast<std::size_t>(width))));
  return parameters;
}

QuantParameters parameters_from_ranges(std::span<const ValueRange> ranges, std::int64_t rows,
                                       const Scheme& scheme, const Arithmetic& arithmetic, ThreadPool& pool) {
  const auto count = static_cast<std::int64_t>(ranges.size());
  check(rows > 0 && count % rows == 0, "every row has the same number of groups");
  QuantParameters parameters = empty_parameters(rows, count / rows, scheme);
  const Parameters fill(scheme, arithmetic, parameters);
  pool.parallel_for(count, 4096, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t group = begin; group < end; ++group)
      fill(group, ranges[static_cast<std::size_t>(group)]);
  });
  return parameters;
}

}  // namespace bise
