#include "cli/random_weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>

#include "base/error.h"
#include "tensor/float_types.h"
#include "tensor/pack.h"

namespace bise {
namespace {

constexpr std::size_t kDraws = 1 << 16;
// How many standard deviations the largest of 128 and of 4096 normal values is from zero, usually.
constexpr float kGroupMaximum = 2.6f, kRowMaximum = 3.8f;
constexpr float kDummyMaximum = 1e-3f;

// Tensors whose elements are drawn from a table of codes: one random number gives four.
class RandomTensors {
 public:
  using Codes = std::array<std::uint16_t, kDraws>;

  explicit RandomTensors(std::uint64_t seed) : random_(seed) {}

  // Every element of `bits` (4, 8 or 16) bits is code(v) for a v of the standard normal distribution.
  template <typename Code>
  Tensor normal(DType dtype, Shape shape, int bits, Code code) {
    return drawn(std::normal_distribution<float>(), dtype, std::move(shape), bits, code);
  }

  // The same for a v of kDummy's distribution of floats.
  template <typename Code>
  Tensor dummy(DType dtype, Shape shape, int bits, Code code) {
    return drawn(std::uniform_real_distribution<float>(-kDummyMaximum, kDummyMaximum), dtype,
                 std::move(shape), bits, code);
  }

  Tensor scales(Shape shape, float least, float most) {
    std::vector<float> values(static_cast<std::size_t>(element_count(shape)));
    std::uniform_real_distribution<float> spread(least, most);
    for (float& value : values) value = spread(random_);
    return from_float(values, DType::kBF16, std::move(shape));
  }

 private:
  template <typename Distribution, typename Code>
  Tensor drawn(Distribution distribution, DType dtype, Shape shape, int bits, Code code) {
    Codes codes;
    for (std::uint16_t& each : codes) each = static_cast<std::uint16_t>(code(distribution(random_)));
    Tensor tensor = Tensor::allocate(dtype, std::move(shape));
    auto* bytes = const_cast<std::byte*>(tensor.bytes().data());
    const std::size_t size = tensor.bytes().size();
    for (std::size_t i = 0; i < size; i += 8) {
      const std::uint64_t word = draw(codes, bits);
      std::copy_n(reinterpret_cast<const std::byte*>(&word), std::min<std::size_t>(8, size - i), bytes + i);
    }
    return tensor;
  }

  std::uint64_t draw(const Codes& codes, int bits) {
    std::uint64_t word = 0;
    for (int filled = 0; filled < 64;)
      for (std::uint64_t numbers = random_(), k = 0; k < 4 && filled < 64;
           ++k, numbers >>= 16, filled += bits)
        word |= std::uint64_t{codes[numbers % kDraws]} << filled;
    return word;
  }

  std::mt19937_64 random_;
};

// `value` over the scale that puts `maximum` on the largest code, as an unsigned code with its zero in the
// middle.
unsigned integer_code(float value, float maximum, int bits) {
  const int middle = 1 << (bits - 1);
  const int code = static_cast<int>(std::lround(value / maximum * (static_cast<float>(middle) - 0.5f)));
  return static_cast<unsigned>(std::clamp(code, -middle, middle - 1) + middle);
}

unsigned nf4_code(float value) {
  const auto distance = [&](float level) { return std::abs(level - value); };
  const auto nearest = std::min_element(kNf4Values.begin(), kNf4Values.end(),
                                        [&](float a, float b) { return distance(a) < distance(b); });
  return static_cast<unsigned>(nearest - kNf4Values.begin());
}

void fill_integers(StoredLinear& linear, RandomTensors& random, float deviation) {
  const Scheme& scheme = linear.scheme;
  const int bits = scheme.num_bits;
  const bool grouped = scheme.strategy == Strategy::kGroup;
  const float maximum = grouped ? kGroupMaximum : kRowMaximum;
  const std::int64_t groups = grouped ? linear.columns / scheme.group_size : 1;
  const auto code = [&](float value) { return integer_code(value, maximum, bits); };
  if (scheme.input ==
      InputType::kInt8Token)  // signed bytes: the middle is subtracted by turning the highest bit
    linear.weight = random.normal(DType::kI8, {linear.rows, linear.columns}, 8,
                                  [&](float value) { return code(value) ^ 0x80u; });
  else
    linear.weight = random.normal(DType::kI32, {linear.rows, linear.columns * bits / 32}, bits, code);
  const float size = deviation * maximum / (static_cast<float>(1 << (bits - 1)) - 0.5f);
  linear.scale = random.scales({linear.rows, groups}, 0.8f * size, 1.2f * size);
  if (!scheme.symmetric)  // within a step or two of the middle
    linear.zero_point = random.normal(DType::kI32, {linear.rows * bits / 32, groups}, bits, [&](float value) {
      return integer_code(value, static_cast<float>(1 << (bits - 1)), bits);
    });
}

void fill_dummy(StoredLinear& linear, RandomTensors& random) {
  Tensor& weight = linear.weight;
  if (weight.dtype() == DType::kBF16)
    weight = random.dummy(DType::kBF16, weight.shape(), 16, float_to_bf16);
  else if (weight.dtype() == DType::kF8E4M3)
    weight = random.dummy(DType::kF8E4M3, weight.shape(), 8, float_to_e4m3);
  else
    weight = random.dummy(weight.dtype(), weight.shape(), 16, [](float) { return 0; });
  if (!linear.scale.empty())
    linear.scale = random.scales(linear.scale.shape(), -kDummyMaximum, kDummyMaximum);
}

}  // namespace

RandomValues parse_random_values(const std::string& name) {
  if (name == "normal") return RandomValues::kNormal;
  if (name == "dummy") return RandomValues::kDummy;
  throw Error("unknown values of random weights").at("--random-values").expected("normal or dummy").got(name);
}

StoredLinear random_linear(const Scheme& scheme, std::int64_t rows, std::int64_t columns, std::uint64_t seed,
                           RandomValues values) {
  RandomTensors random(seed);
  StoredLinear linear;
  linear.scheme = scheme;
  linear.rows = rows;
  linear.columns = columns;
  if (scheme.strategy == Strategy::kGroup && columns % scheme.group_size != 0)
    throw Error("the columns do not divide into groups")
        .expected("a multiple of " + std::to_string(scheme.group_size))
        .got(std::to_string(columns));
  const float deviation = 1 / std::sqrt(static_cast<float>(columns));
  if (!scheme.quantized()) {
    linear.weight = random.normal(DType::kBF16, {rows, columns}, 16,
                                  [&](float value) { return float_to_bf16(value * deviation); });
  } else if (scheme.type == WeightType::kNf4) {
    linear.weight = random.normal(DType::kU8, {rows * columns / 2}, 4,
                                  [](float value) { return nf4_code(value / kGroupMaximum); });
    std::vector<float> absmax(static_cast<std::size_t>(rows * columns / 64), deviation * kGroupMaximum);
    linear.absmax = from_float(absmax, DType::kF32, {rows * columns / 64});
    linear.quant_map = from_float(kNf4Values, DType::kF32, {16});
  } else if (scheme.type == WeightType::kFloat) {
    const float size = deviation * kRowMaximum / kE4M3Max;
    linear.weight = random.normal(DType::kF8E4M3, {rows, columns}, 8,
                                  [](float value) { return float_to_e4m3(value / kRowMaximum * kE4M3Max); });
    linear.scale = random.scales({rows, 1}, 0.8f * size, 1.2f * size);
  } else {
    fill_integers(linear, random, deviation);
  }
  if (values == RandomValues::kDummy) fill_dummy(linear, random);
  return linear;
}

}  // namespace bise
