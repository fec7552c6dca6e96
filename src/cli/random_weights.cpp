#include "cli/random_weights.h"

#include <algorithm>
#include <cmath>
#include <random>

#include "base/error.h"
#include "tensor/float_types.h"
#include "tensor/pack.h"

namespace bise {
namespace {

class RandomBits {
 public:
  explicit RandomBits(std::uint64_t seed) : random_(seed) {}

  // Every 64-bit word is random() & keep | set.
  Tensor tensor(DType dtype, Shape shape, std::uint64_t keep = ~std::uint64_t{0}, std::uint64_t set = 0) {
    Tensor tensor = Tensor::allocate(dtype, std::move(shape));
    auto* bytes = const_cast<std::byte*>(tensor.bytes().data());
    const std::size_t size = tensor.bytes().size();
    for (std::size_t i = 0; i < size; i += 8) {
      const std::uint64_t word = (random_() & keep) | set;
      std::copy_n(reinterpret_cast<const std::byte*>(&word), std::min<std::size_t>(8, size - i), bytes + i);
    }
    return tensor;
  }

  Tensor scales(Shape shape, float size) {
    std::vector<float> values(static_cast<std::size_t>(element_count(shape)));
    std::uniform_real_distribution<float> spread(0.5f * size, 1.5f * size);
    for (float& value : values) value = spread(random_);
    return from_float(values, DType::kBF16, std::move(shape));
  }

 private:
  std::mt19937_64 random_;
};

// Random sign and mantissa under one exponent: bf16 numbers of magnitude [1, 2) * 2^exponent.
Tensor random_bf16(RandomBits& bits, Shape shape, int exponent) {
  const auto biased = static_cast<std::uint64_t>(127 + exponent) << 7;
  constexpr std::uint64_t kLanes = 0x0001000100010001u;
  return bits.tensor(DType::kBF16, std::move(shape), 0x807fu * kLanes, biased * kLanes);
}

}  // namespace

StoredLinear random_linear(const Scheme& scheme, std::int64_t rows, std::int64_t columns,
                           std::uint64_t seed) {
  RandomBits bits(seed);
  StoredLinear linear;
  linear.scheme = scheme;
  linear.rows = rows;
  linear.columns = columns;
  const bool grouped = scheme.strategy == Strategy::kGroup;
  if (grouped && columns % scheme.group_size != 0)
    throw Error("the columns do not divide into groups")
        .expected("a multiple of " + std::to_string(scheme.group_size))
        .got(std::to_string(columns));
  const float size = 1 / std::sqrt(static_cast<float>(columns));
  if (!scheme.quantized()) {
    linear.weight = random_bf16(bits, {rows, columns}, static_cast<int>(std::log2(size)));
  } else if (scheme.type == WeightType::kNf4) {
    linear.weight = bits.tensor(DType::kU8, {rows * columns / 2});
    std::vector<float> absmax(static_cast<std::size_t>(rows * columns / 64), size);
    linear.absmax = from_float(absmax, DType::kF32, {rows * columns / 64});
    linear.quant_map = from_float(kNf4Values, DType::kF32, {16});
  } else if (scheme.type == WeightType::kFloat) {
    // Without the highest exponent bit there is neither NaN nor a value above 1.875.
    linear.weight = bits.tensor(DType::kF8E4M3, {rows, columns}, 0xbfbfbfbfbfbfbfbfu);
    linear.scale = bits.scales({rows, 1}, size);
  } else {
    const std::int64_t groups = grouped ? columns / scheme.group_size : 1;
    linear.weight = scheme.input == InputType::kInt8Token
                        ? bits.tensor(DType::kI8, {rows, columns})
                        : bits.tensor(DType::kI32, {rows, columns * scheme.num_bits / 32});
    linear.scale = bits.scales({rows, groups}, size / static_cast<float>(1 << (scheme.num_bits - 1)));
    if (!scheme.symmetric)
      linear.zero_point = bits.tensor(DType::kI32, {rows * scheme.num_bits / 32, groups});
  }
  return linear;
}

}  // namespace bise
