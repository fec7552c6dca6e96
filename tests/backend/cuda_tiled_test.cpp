// Products of many rows that leave what the next operation wants (cuda/tiled_linear.h) against the same steps
// one by one.
#include "tests/backend/attention_cases.h"

namespace bise {
namespace {

const std::vector<LinearCase>& tiled_cases() {
  using enum Strategy;
  static const std::vector<LinearCase> cases{
      {.name = "BF16", .scheme = {}, .parts = 2},
      {.name = "FP8", .scheme = {WeightType::kFloat, 8, kChannel, 0, true, InputType::kFp8Token}, .parts = 2},
      {.name = "W8A8", .scheme = {WeightType::kInt, 8, kChannel, 0, true, InputType::kInt8Token}, .parts = 2},
      {.name = "W4A16", .scheme = {WeightType::kInt, 4, kGroup, 128, true}, .packed = true, .parts = 2},
  };
  return cases;
}

double root_mean_square(std::span<const float> values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * static_cast<double>(value);
  return std::sqrt(sum / static_cast<double>(values.size()));
}

// Rows whose products with `weight` are about as large as one.
Floats fitting_rows(Backend& backend, const LinearWeight& weight, std::int64_t rows, Random& random) {
  Floats values = random.normals(rows * weight.columns());
  const auto in = encode(backend, values, rows, weight.columns(), encoding_for(weight));
  const auto out = backend.make_matrix(rows, weight.rows());
  backend.linear(*in, weight, *out);
  const auto length = static_cast<float>(root_mean_square(read_all(backend, *out)));
  for (float& value : values) value /= length;
  return values;
}

class CudaTiled : public testing::TestWithParam<LinearCase> {};

// Sums are of about one, but of other kernels: what they differ by is far below bf16's rounding.
TEST_P(CudaTiled, GateAndUpAreJoined) {
  const Variant variant{"cuda", "cuda", 1, 0, cuda_or_null()};
  const auto& cuda = variant.backend;
  if (!cuda) GTEST_SKIP() << "no GPU, or built without CUDA";
  Random random(17);
  constexpr std::int64_t kIntermediate = 384, kColumns = 640;
  const bool joined = GetParam().scheme.input == InputType::kInt8Token;
  const auto weight = cuda->prepare_linear(random_linear(GetParam(), 2 * kIntermediate, kColumns, random));
  for (const std::int64_t rows : {512, 1001}) {
    SCOPED_TRACE(testing::Message() << rows << " rows");
    const auto in =
        encode(*cuda, fitting_rows(*cuda, *weight, rows, random), rows, kColumns, encoding_for(*weight));
    const auto both = cuda->make_matrix(rows, 2 * kIntermediate);
    cuda->linear(*in, *weight, *both);
    const Floats gate_up = read_all(*cuda, *both);
    Floats expected(as_size(rows * kIntermediate));
    std::vector<double> slack(expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const std::size_t r = i / kIntermediate, n = i % kIntermediate;
      const double gate = gate_up[r * 2 * kIntermediate + n], up = gate_up[(r * 2 + 1) * kIntermediate + n];
      const double silu = gate / (1 + std::exp(-gate));
      expected[i] = static_cast<float>(silu * up);
      slack[i] = kBf16Unit * (std::fabs(silu * up) + 0.1);
      // Where they are not joined, gate and up are rounded to bf16 first; silu's slope is below 1.1.
      if (!joined) slack[i] += kBf16Unit * (1.1 * std::fabs(gate * up) + std::fabs(silu * up));
    }
    const auto out = cuda->make_linear_input(rows, kIntermediate);
    for (const InputEncoding encoding :
         {InputEncoding{}, InputEncoding{InputType::kInt8Token}, InputEncoding{InputType::kFp8Token}}) {
      SCOPED_TRACE(testing::Message() << "input type " << static_cast<int>(encoding.type));
      cuda->gated_linear(*in, *weight, encoding, *out);
      const auto tolerance = with_encoding(slack, variant, encoding, expected, kIntermediate);
      ASSERT_TRUE(within(read_all(*cuda, *out), expected, tolerance, kIntermediate));
    }
  }
}

// What the steps leave: of each step the queries, and attention over a token's own value and over two tokens.
struct Heads {
  Floats queries, own, two;
};

// Queries and what attention reads back from the cache; positions do not begin at 0, blocks are in any order.
TEST_P(CudaTiled, HeadsAreTurnedAndStored) {
  const auto cuda = cuda_or_null();
  if (!cuda) GTEST_SKIP() << "no GPU, or built without CUDA";
  constexpr AttentionShape kShape{6, 2, 128};
  constexpr std::int64_t kColumns = 640, kBlock = 16, kBlocks = 100, kOut = 6 * 128;
  constexpr float kFactor = 1.25f;
  const std::vector<Step> steps{{{0, 300}, {1, 411}}, {{1, 2}, {0, 701}, {2, 1}}, {{2, 600}}};
  Random random(18);
  const auto weight = cuda->prepare_linear(random_linear(GetParam(), kShape.qkv_columns(), kColumns, random));
  const RopeTable rope = turning_rope(kShape, kFactor);
  std::vector<std::unique_ptr<LinearInput>> inputs;
  std::vector<Floats> products;
  for (const Step& step : steps) {
    std::int64_t rows = 0;
    for (const Turn& turn : step) rows += turn.queries;
    inputs.push_back(
        encode(*cuda, fitting_rows(*cuda, *weight, rows, random), rows, kColumns, encoding_for(*weight)));
    const auto product = cuda->make_matrix(rows, kShape.qkv_columns());
    cuda->linear(*inputs.back(), *weight, *product);
    products.push_back(read_all(*cuda, *product));
  }
  const auto run = [&](bool joined) {
    constexpr std::int64_t kAll = 3 * BlockTables::kGroups * kBlocks;
    const auto cache =
        cuda->make_kv_cache({2, kAll, kBlock, kShape.num_kv_heads, kShape.head_dim, DType::kBF16});
    BlockTables tables(kBlock, kAll, kBlocks, 3);
    std::vector<Heads> left;
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const Batch batch = tables.next(steps[i], 0);
      const std::int64_t rows = batch.tokens();
      const auto qkv = cuda->make_intermediate(rows, kShape.qkv_columns());
      const auto out = cuda->make_linear_input(rows, kOut);
      const CacheLayer layer{1, 1, 1, 1};
      cuda->begin_step(batch, *cache);
      if (joined) {
        cuda->qkv_linear(*inputs[i], *weight, kShape, rope, layer, *qkv);
      } else {
        cuda->linear(*inputs[i], *weight, *qkv);
        cuda->rope_and_store(kShape, rope, layer, *qkv);
      }
      Heads& heads = left.emplace_back();
      const Floats all = read_all(*cuda, *qkv);
      for (auto row = all.begin(); row != all.end(); row += kShape.qkv_columns())
        heads.queries.insert(heads.queries.end(), row, row + kOut);
      cuda->attention(kShape, layer, 1, *qkv, {}, *out);
      heads.own = read_all(*cuda, *out);
      cuda->attention(kShape, layer, 2, *qkv, {}, *out);
      heads.two = read_all(*cuda, *out);
    }
    return left;
  };
  const std::vector<Heads> apart = run(false), joined = run(true);
  for (std::size_t i = 0; i < steps.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "step " << i);
    // Apart, the products are rounded to bf16 before they turn as well: the queries differ by the roundings
    // of a pair's two values, before and after.
    std::vector<double> queries(apart[i].queries.size()), own(queries.size()), two(queries.size());
    for (std::size_t j = 0; j < queries.size(); ++j) {
      const std::size_t pair = j % 128 < 64 ? j + 64 : j - 64;
      const double length = std::hypot(apart[i].queries[j], apart[i].queries[pair]);
      queries[j] = 1.01 * kBf16Unit * (length + std::fabs(static_cast<double>(apart[i].queries[j])));
      own[j] = 1.01 * kBf16Unit * std::fabs(static_cast<double>(apart[i].own[j]));
    }
    // Of two tokens the weight of one moves by at most a quarter of what their scores' difference moves; a
    // score by 2 roundings of queries and 2 of keys. The first row of a turn has its other token elsewhere.
    std::int64_t row = 0;
    for (const Turn& turn : steps[i])
      for (std::int64_t query = 0; query < turn.queries; ++query, ++row)
        for (std::int64_t head = 0; head < kShape.num_heads; ++head) {
          const std::size_t at = as_size(row * kOut + head * 128);
          const auto length_of_key = [&](std::int64_t of) {
            const std::size_t key = as_size(of * kShape.qkv_columns() + (6 + head / 3) * 128);
            return kFactor * row_lengths(std::span(products[i]).subspan(key, 128), 128)[0];
          };
          const double query_length = row_lengths(std::span(apart[i].queries).subspan(at, 128), 128)[0];
          const double key_length = query > 0 ? std::max(length_of_key(row), length_of_key(row - 1)) : 1e9;
          const double moved = 2 * 4 * kBf16Unit * query_length * key_length / std::sqrt(128.0) / 4;
          for (std::size_t j = at; j < at + 128; ++j) {
            const double apart_by =
                query > 0 ? std::fabs(static_cast<double>(apart[i].own[j]) - apart[i].own[j - kOut]) : 1.0;
            two[j] = std::min(1.0, moved) * apart_by +
                     4 * kBf16Unit * (std::fabs(static_cast<double>(apart[i].two[j])) + apart_by);
          }
        }
    // Other products leave the queries to attention, which shows in what two tokens give.
    if (GetParam().scheme.input == InputType::kInt8Token) {
      EXPECT_TRUE(within(joined[i].queries, apart[i].queries, queries, kOut)) << "queries";
    }
    EXPECT_TRUE(within(joined[i].own, apart[i].own, own, kOut)) << "values";
    EXPECT_TRUE(within(joined[i].two, apart[i].two, two, kOut)) << "keys";
  }
}

INSTANTIATE_TEST_SUITE_P(Schemes, CudaTiled, testing::ValuesIn(tiled_cases()), case_name);

}  // namespace
}  // namespace bise
