// The sparse mixture of experts of every CPU backend against reference/.
#include <map>

#include "tests/backend/linear_cases.h"

namespace bise {
namespace {

constexpr std::int64_t kHidden = 128, kIntermediate = 96, kRows = 23;

struct Layer {
  std::int64_t experts, per_token;
  std::vector<StoredLinear> router;
  std::vector<std::vector<StoredLinear>> gate_up, down;

  Layer(LinearCase kind, std::int64_t experts_, std::int64_t per_token_, Random& random)
      : experts(experts_), per_token(per_token_) {
    kind.parts = 1;
    kind.bias = false;
    // Large logits keep the experts' ranks far apart, so that no rounding can exchange them.
    Floats weight = random.normals(experts * kHidden);
    router = {random_part({.name = "", .scheme = {}}, experts, kHidden, random)};
    router[0].weight = from_float(weight, DType::kBF16, {experts, kHidden});
    for (std::int64_t expert = 0; expert < experts; ++expert) {
      gate_up.push_back({random_part(kind, kIntermediate, kHidden, random),
                         random_part(kind, kIntermediate, kHidden, random)});
      down.push_back({random_part(kind, kHidden, kIntermediate, random)});
    }
  }

  ExpertWeights prepare(Backend& backend) const {
    ExpertWeights weights{backend.prepare_linear(router), {}, {}, per_token};
    for (std::size_t e = 0; e < gate_up.size(); ++e) {
      weights.gate_up.push_back(backend.prepare_linear(gate_up[e]));
      weights.down.push_back(backend.prepare_linear(down[e]));
    }
    return weights;
  }
};

Floats run(const Variant* variant, const Layer& layer, std::span<const float> inputs, std::int64_t rows) {
  Backend& backend = variant ? *variant->backend : reference();
  const ExpertWeights weights = layer.prepare(backend);
  const auto in = encode(backend, inputs, rows, kHidden, {});
  const auto out = backend.make_matrix(rows, kHidden);
  backend.experts(*in, weights, *out);
  return read_all(backend, *out);
}

// Bounds on what an expert of this layer may see and return, for the tolerance.
struct Sizes {
  double intermediate = 0;  // largest silu(gate) * up
  double down_row = 0, down_value = 0;
};

Sizes sizes_of(const Layer& layer, std::span<const float> inputs) {
  Sizes sizes;
  for (std::size_t e = 0; e < layer.gate_up.size(); ++e) {
    const Floats gate_up = dequantized(layer.gate_up[e]), down = dequantized(layer.down[e]);
    sizes.down_value = std::max<double>(sizes.down_value, largest_of(down));
    for (const double length : row_lengths(down, kIntermediate))
      sizes.down_row = std::max(sizes.down_row, length);
    for (std::int64_t r = 0; r < kRows; ++r)
      for (std::int64_t i = 0; i < kIntermediate; ++i) {
        double gate = 0, up = 0;
        for (std::int64_t k = 0; k < kHidden; ++k) {
          const double x = inputs[as_size(r * kHidden + k)];
          gate += gate_up[as_size(i * kHidden + k)] * x;
          up += gate_up[as_size((i + kIntermediate) * kHidden + k)] * x;
        }
        sizes.intermediate = std::max(sizes.intermediate, std::fabs(gate / (1 + std::exp(-gate)) * up));
      }
  }
  return sizes;
}

// The middle of an expert is encoded: where it stays in floating point its rounding (float32's, with
// bfloat16's on AMX) reaches an output as a sum of I errors times a row of `down`; where it has codes, a
// value near the middle between two of them may fall on the other side: three of them, by one step each.
double tolerance_of(const Variant& variant, InputType type, const Sizes& sizes) {
  const double root = std::sqrt(static_cast<double>(kIntermediate));
  double unit = 64 * kUnit;
  if (variant.rounds_to_bf16()) unit += 4 * kBf16Unit;  // weights and the middle
  double tolerance = unit * sizes.intermediate * sizes.down_row * root / 4;
  if (type == InputType::kInt8Token) tolerance += 3 * sizes.intermediate / 127 * sizes.down_value;
  if (type == InputType::kFp8Token) tolerance += 3 * sizes.intermediate / 8 * sizes.down_value;
  return tolerance;
}

class Experts : public testing::TestWithParam<LinearCase> {};

TEST_P(Experts, AgreeWithReference) {
  for (const auto& [experts, per_token] : {std::pair{8, 2}, std::pair{4, 1}, std::pair{3, 3}}) {
    SCOPED_TRACE(testing::Message() << per_token << " of " << experts);
    Random random(3);
    const Layer layer(GetParam(), experts, per_token, random);
    const Floats inputs = rounded_to_bf16(random.normals(kRows * kHidden));
    const Sizes sizes = sizes_of(layer, inputs);
    const Floats expected = run(nullptr, layer, inputs, kRows);
    std::map<std::string, Floats> by_kind;
    for_each_variant([&](const Variant& variant) {
      const Floats actual = run(&variant, layer, inputs, kRows);
      const std::vector<double> tolerance(expected.size(),
                                          tolerance_of(variant, GetParam().scheme.input, sizes));
      EXPECT_TRUE(within(actual, expected, tolerance, kHidden));
      EXPECT_TRUE(identical(actual, by_kind.try_emplace(variant.kind, actual).first->second, kHidden))
          << "with another number of threads";
      Floats single;
      for (std::int64_t row = 0; row < kRows; ++row) {
        const Floats one =
            run(&variant, layer, std::span(inputs).subspan(as_size(row * kHidden), kHidden), 1);
        single.insert(single.end(), one.begin(), one.end());
      }
      EXPECT_TRUE(identical(single, actual, kHidden)) << "row by row";
    });
  }
}

std::vector<LinearCase> expert_cases() {
  std::vector<LinearCase> chosen;
  for (const LinearCase& one : linear_cases())
    for (const char* name : {"BF16", "F32", "W4A16_g32", "W8A8", "FP8_channel_dynamic", "FP8_tensor", "NF4"})
      if (one.name == name) chosen.push_back(one);
  return chosen;
}

INSTANTIATE_TEST_SUITE_P(Schemes, Experts, testing::ValuesIn(expert_cases()), case_name);

}  // namespace
}  // namespace bise
