// The oracle itself: reference/ against direct definitions in double, small enough to read.
#include "tests/backend/attention_cases.h"
#include "tests/backend/linear_cases.h"

namespace bise {
namespace {

std::unique_ptr<LinearInput> encoded(const Floats& values, InputEncoding encoding) {
  return encode(reference(), values, 1, static_cast<std::int64_t>(values.size()), encoding);
}

struct EncodingCase {
  std::string name;
  InputEncoding encoding;
  Floats values, decoded;
};

TEST(Reference, EncodesByVllmsRules) {
  const float tiny = 1.0f / (448 * 512);
  const std::vector<EncodingCase> cases{
      {"none", {}, {0.1f, -3}, {0.1f, -3}},
      // scale 2: 1 / 2 and 3 / 2 are ties and go to even codes
      {"int8", {InputType::kInt8Token}, {254, 1, 3, -5, -253.2f, 0}, {254, 0, 4, -4, -254, 0}},
      {"int8 of zeros", {InputType::kInt8Token}, {0, 0}, {0, 0}},
      // scale 1: e4m3 has steps of 1/8 in [1, 2), of 32 in [256, 448], of 2^-9 below 2^-6
      {"fp8",
       {InputType::kFp8Token},
       {448, 1.06f, 1.07f, -300, 0x1.8p-9f, 0x1p-11f},
       {448, 1, 1.125f, -288, 0x1p-8f, 0}},
      {"fp8 floor", {InputType::kFp8Token}, {tiny, -tiny / 8, 0}, {tiny, -tiny / 8, 0}},
      {"fp8 static", {InputType::kFp8Tensor, 0.5f}, {300, -1, 0.3f}, {224, -1, 0.3125f}},
  };
  for (const EncodingCase& one : cases) {
    const auto input = encoded(one.values, one.encoding);
    EXPECT_EQ(read_all(reference(), *input), one.decoded) << one.name;
    EXPECT_EQ(input->type(), one.encoding.type);
  }
}

TEST(Reference, LinearIsTheSumOfProducts) {
  constexpr std::int64_t kBatch = 11;  // more than one and not a multiple of its lanes
  for (const LinearCase& kind : linear_cases()) {
    SCOPED_TRACE(kind.name);
    for (const auto& [rows, columns] : {std::pair{37, 128}, std::pair{12, 33}}) {
      if (!kind.permits(rows, columns)) continue;
      Random random(1);
      const auto parts = random_linear(kind, rows, columns, random);
      const Floats weight = dequantized(parts), inputs = random_rows(kBatch, columns, random);
      const auto prepared = reference().prepare_linear(parts);
      EXPECT_EQ(prepared->rows(), rows);
      EXPECT_EQ(prepared->columns(), columns);
      EXPECT_EQ(prepared->input_type(), kind.scheme.input);
      const auto in = encode(reference(), inputs, kBatch, columns, encoding_for(*prepared));
      const Floats decoded = read_all(reference(), *in);
      const auto out = reference().make_matrix(kBatch, rows);
      reference().linear(*in, *prepared, *out);
      const Floats actual = read_all(reference(), *out);
      Floats bias;
      for (const StoredLinear& part : parts) {
        bias.resize(bias.size() + as_size(part.rows));
        if (!part.bias.empty()) to_float(part.bias, std::span(bias).last(as_size(part.rows)));
      }
      for (std::int64_t r = 0; r < kBatch; ++r)
        for (std::int64_t n = 0; n < rows; ++n) {
          double sum = bias[as_size(n)], size = std::fabs(sum);
          for (std::int64_t k = 0; k < columns; ++k) {
            const double product = static_cast<double>(weight[as_size(n * columns + k)]) *
                                   static_cast<double>(decoded[as_size(r * columns + k)]);
            sum += product;
            size += std::fabs(product);
          }
          // Decoded inputs and weights were rounded once each, the output once more.
          ASSERT_NEAR(actual[as_size(r * rows + n)], sum, 3 * kUnit * size) << r << ", " << n;
        }
    }
  }
}

TEST(Reference, StaticInputScaleIsTheLargestOfTheParts) {
  Random random(1);
  const LinearCase kind{.name = "",
                        .scheme = {WeightType::kFloat, 8, Strategy::kTensor, 0, true, InputType::kFp8Tensor}};
  std::vector<StoredLinear> parts;
  for (const float scale : {0.25f, 2.0f, 0.5f}) {
    parts.push_back(random_part(kind, 4, 8, random));
    parts.back().input_scale = from_float(Floats{scale}, DType::kF32, {1});
  }
  EXPECT_EQ(reference().prepare_linear(parts)->input_scale(), 2.0f);
}

TEST(Reference, GatesWithSilu) {
  const Floats rows{1, 0, 0, 1, 3, 0, 0, -2};  // gate = x, up = (3 x0, -2 x1)
  const auto part = [&](std::size_t first) { return plain_linear(std::span(rows).subspan(first, 4), 2, 2); };
  const auto weight = reference().prepare_linear({part(0), part(4)});
  const auto out = reference().make_linear_input(1, 2);
  reference().gated_linear(*encoded({1.5f, -0.5f}, {}), *weight, {}, *out);
  const Floats actual = read_all(reference(), *out);
  EXPECT_FLOAT_EQ(actual[0], static_cast<float>(1.5 / (1 + std::exp(-1.5)) * 4.5));
  EXPECT_FLOAT_EQ(actual[1], static_cast<float>(-0.5 / (1 + std::exp(0.5)) * 1.0));
}

TEST(Reference, NormsTheSumAndPicksRows) {
  const auto residual = matrix_of(reference(), Floats{1, 2, 3, 4, 0, 1}, 3, 2);
  const auto delta = matrix_of(reference(), Floats{0, 0, 0, 0, 3, 3}, 3, 2);
  const auto weight = reference().prepare_tensor(from_float(Floats{1, 0.5f}, DType::kBF16, {2}));
  const auto out = reference().make_linear_input(3, 2);
  const std::vector<std::int32_t> picked{2, 0};
  reference().add_rms_norm(delta.get(), *residual, *weight, 0.5f, {}, *out, picked);
  EXPECT_EQ(read_all(reference(), *residual), (Floats{1, 2, 3, 4, 3, 4}));
  const Floats actual = read_all(reference(), *out);
  ASSERT_EQ(actual.size(), 4u);
  EXPECT_FLOAT_EQ(actual[0], static_cast<float>(3 / std::sqrt(13.0)));
  EXPECT_FLOAT_EQ(actual[1], static_cast<float>(2 / std::sqrt(13.0)));
  EXPECT_FLOAT_EQ(actual[2], static_cast<float>(1 / std::sqrt(3.0)));
  EXPECT_FLOAT_EQ(actual[3], static_cast<float>(1 / std::sqrt(3.0)));
}

// Rotation and attention with whole keys and values in a row, no cache and no blocks.
Floats dense_attention(const AttentionCase& one, const AttentionRun& how, std::int64_t sequence) {
  const RopeTable& rope = how.rope;
  const auto stored = [&](float value, float scale) {
    if (how.cache_dtype == DType::kF8E4M3) return e4m3_to_float(float_to_e4m3(value / scale)) * scale;
    return how.cache_dtype == DType::kBF16 ? round_to_bf16(value) : value;
  };
  const AttentionShape& shape = one.shape;
  const Histories histories(one, 7);
  const std::int64_t length = histories.lengths().at(sequence), d = shape.head_dim, half = d / 2;
  const auto source = histories.rows(sequence, 0, length);
  Floats rows(source.begin(), source.end()), out;
  const auto at = [&](std::int64_t position, std::int64_t head) {
    return rows.data() + position * shape.qkv_columns() + head * d;
  };
  const std::int64_t values = shape.num_heads + shape.num_kv_heads, heads = values + shape.num_kv_heads;
  for (std::int64_t p = 0; p < length; ++p)
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t i = 0; i < half; ++i) {
        float &x = at(p, h)[i], &y = at(p, h)[i + half];
        if (h < values) {
          const double angle = static_cast<float>(p) * rope.inv_freq[as_size(i)];
          const double c = std::cos(angle) * rope.attention_factor,
                       s = std::sin(angle) * rope.attention_factor;
          const double turned = x * c - y * s;
          y = static_cast<float>(x * s + y * c);
          x = static_cast<float>(turned);
        }
        if (h < shape.num_heads) continue;
        const float scale = h < values ? how.key_scale : how.value_scale;
        x = stored(x, scale), y = stored(y, scale);
      }
  for (std::int64_t p = 0; p < length; ++p)
    for (std::int64_t h = 0; h < shape.num_heads; ++h) {
      const std::int64_t kv = h * shape.num_kv_heads / shape.num_heads;
      std::vector<double> sums(as_size(d));
      double total = 0;
      for (std::int64_t past = 0; past <= p; ++past) {
        if (one.sliding_window > 0 && past <= p - one.sliding_window) continue;
        double score = 0;
        for (std::int64_t i = 0; i < d; ++i)
          score += static_cast<double>(at(p, h)[i]) * static_cast<double>(at(past, shape.num_heads + kv)[i]);
        const double weight = std::exp(score / std::sqrt(static_cast<double>(d)));
        total += weight;
        for (std::int64_t i = 0; i < d; ++i)
          sums[as_size(i)] += weight * static_cast<double>(at(past, values + kv)[i]);
      }
      for (const double sum : sums) out.push_back(static_cast<float>(sum / total));
    }
  return out;
}

TEST(Reference, AttentionReadsThroughTheBlockTables) {
  for (const AttentionCase& one : attention_cases())
    for (const DType dtype : {DType::kBF16, DType::kF32, DType::kF8E4M3}) {
      SCOPED_TRACE(testing::Message() << one.name << ", cache " << dtype_name(dtype));
      const AttentionRun how{.rope = turning_rope(one.shape, 1.1f),
                             .cache_dtype = dtype,
                             .key_scale = 0.02f,
                             .value_scale = 0.05f};
      const auto actual = run_attention(reference(), one, how);
      for (const auto& [sequence, values] : actual) {
        const Floats expected = dense_attention(one, how, sequence);
        const std::vector<double> tolerance(expected.size(), 8 * kUnit);
        ASSERT_TRUE(within(values, expected, tolerance, one.shape.num_heads * one.shape.head_dim));
      }
    }
}

TEST(Reference, ExpertsAreWeightedByTheSoftmaxOfTheChosen) {
  const auto layer = [](const Floats& weight, std::int64_t rows) { return plain_linear(weight, rows, 1); };
  // Router logits for x = 1: 0, 2, -1, 1: experts 1 and 3, weights 1 / (1 + e^-1) and 1 / (1 + e).
  ExpertWeights weights{reference().prepare_linear({layer({0, 2, -1, 1}, 4)}), {}, {}, 2};
  for (const float expert : {1.0f, 2.0f, 3.0f, 4.0f}) {
    weights.gate_up.push_back(reference().prepare_linear({layer({1}, 1), layer({expert}, 1)}));
    weights.down.push_back(reference().prepare_linear({layer({10}, 1)}));
  }
  const auto out = reference().make_matrix(1, 1);
  reference().experts(*encoded({1}, {}), weights, *out);
  const double silu = 1 / (1 + std::exp(-1.0));
  const double expected = silu * 2 * 10 / (1 + std::exp(-1.0)) + silu * 4 * 10 / (1 + std::exp(1.0));
  EXPECT_FLOAT_EQ(read_all(reference(), *out)[0], static_cast<float>(expected));
}

TEST(Reference, HessianAddsTwiceTheOuterProduct) {
  Floats hessian{10, 0, -1, 20};
  reference().accumulate_hessian(*encode(reference(), Floats{1, 2, 3, -4}, 2, 2, {}), hessian);
  EXPECT_EQ(hessian, (Floats{30, -20, -1, 60}));
}

TEST(Reference, KvCacheHoldsOnlyWhatItSays) {
  EXPECT_ANY_THROW(reference().make_kv_cache({1, 1, 16, 1, 64, DType::kI8}));
}

}  // namespace
}  // namespace bise
