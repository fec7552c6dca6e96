// The sparse mixture of experts of every backend against reference/.
#include <map>

#include "tests/backend/linear_cases.h"

namespace bise {
namespace {

struct Widths {
  std::int64_t hidden, intermediate;
};
constexpr Widths kSmall = {128, 96};
constexpr std::int64_t kRows = 23;

struct Layer {
  Widths widths;
  std::int64_t experts, per_token;
  std::vector<StoredLinear> router;
  std::vector<std::vector<StoredLinear>> gate_up, down;

  Layer(LinearCase kind, Widths widths_, std::int64_t experts_, std::int64_t per_token_, Random& random)
      : widths(widths_), experts(experts_), per_token(per_token_) {
    const auto [hidden, intermediate] = widths;
    kind.parts = 1;
    kind.bias = false;
    // Large logits keep the experts' ranks far apart, so that no rounding can exchange them.
    Floats weight = random.normals(experts * hidden);
    router = {random_part({.name = "", .scheme = {}}, experts, hidden, random)};
    router[0].weight = from_float(weight, DType::kBF16, {experts, hidden});
    for (std::int64_t expert = 0; expert < experts; ++expert) {
      gate_up.push_back(
          {random_part(kind, intermediate, hidden, random), random_part(kind, intermediate, hidden, random)});
      down.push_back({random_part(kind, hidden, intermediate, random)});
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
  const auto in = encode(backend, inputs, rows, layer.widths.hidden, {});
  const auto out = backend.make_matrix(rows, layer.widths.hidden);
  backend.experts(*in, weights, *out);
  return read_all(backend, *out);
}

// Bounds on what an expert of this layer may see and return, for the tolerance.
struct Sizes {
  double intermediate = 0;  // largest silu(gate) * up
  double down_row = 0, down_value = 0;
  double off_in_planes = 0;  // largest standard deviation of `intermediate` where planes hold the input
};

// The standard deviation of what planes round off, in units of the largest of the row.
const double kOffInPlanes = 1 / (kPlaneSteps * std::sqrt(12.0));

Sizes sizes_of(const Layer& layer, std::span<const float> inputs) {
  const auto [hidden, intermediate] = layer.widths;
  const auto rows = static_cast<std::int64_t>(inputs.size()) / hidden;
  Sizes sizes;
  for (std::size_t e = 0; e < layer.gate_up.size(); ++e) {
    const Floats gate_up = dequantized(layer.gate_up[e]), down = dequantized(layer.down[e]);
    sizes.down_value = std::max<double>(sizes.down_value, largest_of(down));
    for (const double length : row_lengths(down, intermediate))
      sizes.down_row = std::max(sizes.down_row, length);
    const std::vector<double> lengths = row_lengths(gate_up, hidden);
    for (std::int64_t r = 0; r < rows; ++r) {
      const double off = largest_of(inputs.subspan(as_size(r * hidden), as_size(hidden))) * kOffInPlanes;
      for (std::int64_t i = 0; i < intermediate; ++i) {
        double gate = 0, up = 0;
        for (std::int64_t k = 0; k < hidden; ++k) {
          const double x = inputs[as_size(r * hidden + k)];
          gate += gate_up[as_size(i * hidden + k)] * x;
          up += gate_up[as_size((i + intermediate) * hidden + k)] * x;
        }
        const double silu = gate / (1 + std::exp(-gate));
        sizes.intermediate = std::max(sizes.intermediate, std::fabs(silu * up));
        sizes.off_in_planes =
            std::max(sizes.off_in_planes, off * (1.1 * std::fabs(up) * lengths[as_size(i)] +
                                                 std::fabs(silu) * lengths[as_size(i + intermediate)]));
      }
    }
  }
  return sizes;
}

// The middle of an expert is encoded: where it stays in floating point its rounding (float32's, with
// bfloat16's on AMX) reaches an output as a sum of I errors times a row of `down`; where it has codes, a
// value near the middle between two of them may fall on the other side: three of them, by one step each.
// Planes round the input, which moves gate and up (silu's slope is below 1.1), and the middle: six standard
// deviations of that.
double tolerance_of(const Variant& variant, const LinearCase& kind, const Layer& layer, const Sizes& sizes) {
  const double root = std::sqrt(static_cast<double>(layer.widths.intermediate));
  double unit = 64 * kUnit;
  if (variant.rounds_to_bf16()) unit += 4 * kBf16Unit;  // weights and the middle
  double tolerance = unit * sizes.intermediate * sizes.down_row * root / 4;
  if (takes_planes(variant, kind, layer.widths.hidden))
    tolerance += 6 * (sizes.off_in_planes + kOffInPlanes * sizes.intermediate) * sizes.down_row;
  const InputType type = kind.scheme.input;
  if (type == InputType::kInt8Token) tolerance += 3 * sizes.intermediate / 127 * sizes.down_value;
  if (type == InputType::kFp8Token || type == InputType::kFp8Tensor)
    tolerance += 3 * sizes.intermediate / 8 * sizes.down_value;
  return tolerance;
}

class Experts : public testing::TestWithParam<LinearCase> {
 protected:
  // Whether all experts run in one launch (cuda/grouped_linear.h), which keeps more rows independent.
  static bool is_grouped(const Variant& variant) {
    const Scheme& scheme = GetParam().scheme;
    return variant.kind == "cuda" && (!scheme.quantized() || (scheme.input != InputType::kNone &&
                                                              scheme.strategy == Strategy::kChannel));
  }

  // Rows of a step up to which a row's result depends on that row alone. Int4 experts have one launch where
  // they have panels of whole halves; others depend on how many rows each of them has.
  static std::int64_t independent_rows(const Variant& variant, Widths widths) {
    if (is_grouped(variant)) return 512;
    if (!has_int4_on_gpu(variant, GetParam())) return variant.independent_rows;
    const bool one_launch = !GetParam().g_idx && widths.intermediate % 64 == 0;
    return one_launch ? kFewInt4Rows.last : kDigitInt4Rows.last;
  }
};

TEST_P(Experts, AgreeWithReference) {
  for (const auto& [experts, per_token] : {std::pair{8, 2}, std::pair{4, 1}, std::pair{3, 3}}) {
    SCOPED_TRACE(testing::Message() << per_token << " of " << experts);
    constexpr std::int64_t kHidden = kSmall.hidden;
    Random random(3);
    const Layer layer(GetParam(), kSmall, experts, per_token, random);
    const Floats inputs = rounded_to_bf16(random.normals(kRows * kHidden));
    const Sizes sizes = sizes_of(layer, inputs);
    const Floats expected = run(nullptr, layer, inputs, kRows);
    std::map<std::string, Floats> by_kind;
    for_each_variant([&](const Variant& variant) {
      const Floats actual = run(&variant, layer, inputs, kRows);
      const std::vector<double> tolerance(expected.size(), tolerance_of(variant, GetParam(), layer, sizes));
      EXPECT_TRUE(within(actual, expected, tolerance, kHidden));
      EXPECT_TRUE(identical(actual, by_kind.try_emplace(variant.kind, actual).first->second, kHidden))
          << "with another number of threads";
      const std::int64_t few = std::min(kRows, independent_rows(variant, kSmall));
      const Floats together =
          few < kRows ? run(&variant, layer, std::span(inputs).first(as_size(few * kHidden)), few) : actual;
      Floats single;
      for (std::int64_t row = 0; row < few; ++row) {
        const Floats one =
            run(&variant, layer, std::span(inputs).subspan(as_size(row * kHidden), kHidden), 1);
        single.insert(single.end(), one.begin(), one.end());
      }
      EXPECT_TRUE(identical(single, together, kHidden)) << "row by row";
    });
  }
}

// The inputs' rows again and again, `rows` in all.
Floats repeated(std::span<const float> inputs, std::int64_t rows, std::int64_t columns) {
  Floats all;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::size_t first = as_size(r * columns) % inputs.size();
    all.insert(all.end(), inputs.begin() + static_cast<std::ptrdiff_t>(first),
               inputs.begin() + static_cast<std::ptrdiff_t>(first) + columns);
  }
  return all;
}

// Steps of every way that a GPU takes, and tiles that are not full. A processor takes any number of rows the
// same way.
TEST_P(Experts, AgreeWithReferenceInStepsOfEverySize) {
  constexpr std::int64_t kDistinct = 75, kMostOnProcessor = 33;
  for (const Widths widths : {Widths{384, 272}, Widths{136, 320}, Widths{256, 384}}) {
    if (!GetParam().permits(widths.hidden, widths.intermediate) ||
        !GetParam().permits(widths.intermediate, widths.hidden))
      continue;
    SCOPED_TRACE(testing::Message() << widths.hidden << " x " << widths.intermediate);
    Random random(4);
    const Layer layer(GetParam(), widths, 8, 2, random);
    const Floats inputs = rounded_to_bf16(random.normals(kDistinct * widths.hidden));
    const Sizes sizes = sizes_of(layer, inputs);
    const Floats one_of_each = run(nullptr, layer, inputs, kDistinct);
    for_each_variant([&](const Variant& variant) {
      const double tolerance = tolerance_of(variant, GetParam(), layer, sizes);
      const std::int64_t most_independent = independent_rows(variant, widths);
      Floats independent;
      for (const std::int64_t rows : {1, 2, 5, 7, 33, 64, 65, 200, 300, 512, 600}) {
        if (rows > kMostOnProcessor && variant.kind != "cuda") continue;
        SCOPED_TRACE(testing::Message() << rows << " rows");
        const Floats expected = repeated(one_of_each, rows, widths.hidden);
        const Floats actual = run(&variant, layer, repeated(inputs, rows, widths.hidden), rows);
        EXPECT_TRUE(within(actual, expected, std::vector<double>(expected.size(), tolerance), widths.hidden));
        if (rows > most_independent) continue;
        const std::size_t common = std::min(independent.size(), actual.size());
        EXPECT_TRUE(
            identical(std::span(actual).first(common), std::span(independent).first(common), widths.hidden))
            << "as in fewer rows";
        independent = actual;
      }
    });
  }
}

// Router logits that do not depend on the row but for one column of ones.
TEST_P(Experts, AgreeWithReferenceWhereAllRowsChooseTheSame) {
  struct Choice {
    const char* name;
    std::vector<float> logits;
    std::int64_t per_token;
  };
  const std::vector<Choice> choices = {
      {"one expert", {0, 1, -2, 5, 0, 2, 1, -1}, 1},
      {"two", {0, 1, -2, 5, 0, 7, 1, -1}, 2},
      {"the first of equals", {1, 2, 2, 1, 2, 0, 0, 2}, 1},
      {"the first two of equals", {1, 2, 2, 1, 2, 0, 0, 2}, 2},
      {"all equal", {0, 0, 0, 0, 0, 0, 0, 0}, 2},
  };
  for (const Choice& choice : choices) {
    SCOPED_TRACE(choice.name);
    Random random(5);
    Layer layer(GetParam(), kSmall, 8, choice.per_token, random);
    Floats router(as_size(8 * kSmall.hidden)),
        inputs = rounded_to_bf16(random.normals(kRows * kSmall.hidden));
    for (std::size_t e = 0; e < 8; ++e) router[e * as_size(kSmall.hidden)] = choice.logits[e];
    for (std::int64_t r = 0; r < kRows; ++r) inputs[as_size(r * kSmall.hidden)] = 1;
    layer.router[0].weight = from_float(router, DType::kBF16, {8, kSmall.hidden});
    const Sizes sizes = sizes_of(layer, inputs);
    const Floats one_of_each = run(nullptr, layer, inputs, kRows);
    for_each_variant([&](const Variant& variant) {
      const double tolerance = tolerance_of(variant, GetParam(), layer, sizes);
      for (const std::int64_t rows : {std::int64_t{3}, kRows, std::int64_t{150}}) {
        if (rows > kRows && variant.kind != "cuda") continue;
        SCOPED_TRACE(testing::Message() << rows << " rows");
        const Floats expected = repeated(one_of_each, rows, kSmall.hidden);
        const Floats actual = run(&variant, layer, repeated(inputs, rows, kSmall.hidden), rows);
        EXPECT_TRUE(within(actual, expected, std::vector<double>(expected.size(), tolerance), kSmall.hidden));
      }
    });
  }
}

std::vector<LinearCase> expert_cases() {
  std::vector<LinearCase> chosen;
  for (const LinearCase& one : linear_cases())
    for (const char* name : {"BF16", "F32", "W4A16_g32", "W4A16_g64", "W4A16_ASYM_g128", "W4A16_channel",
                             "W4A16_g_idx", "W8A16_channel", "W8A8", "FP8_channel_dynamic",
                             "FP8_channel_static", "FP8_tensor", "FP8_block", "NF4"})
      if (one.name == name) chosen.push_back(one);
  return chosen;
}

INSTANTIATE_TEST_SUITE_P(Schemes, Experts, testing::ValuesIn(expert_cases()), case_name);

}  // namespace
}  // namespace bise
