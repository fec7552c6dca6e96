// Steps in which CUDA's attention turns queries, and where each sequence has one, turns keys and stores keys
// and values (cuda/tile_attention.h), against the same steps one by one.
#include "tests/backend/attention_cases.h"

namespace bise {
namespace {

struct TurnedCase {
  std::string name;
  AttentionShape shape;
  std::int64_t sliding_window = 0;
  DType cache = DType::kBF16;
  float key_scale = 1, value_scale = 1;
};

void PrintTo(const TurnedCase& one, std::ostream* out) {
  *out << one.name;
}

// Blocks of 16 and tiles of 64 keys begin and end with single tokens; contexts of more than 512 are divided.
// The last steps read what those before them stored.
const std::vector<Step> kSteps{{{0, 700}, {1, 14}, {2, 62}},
                               {{0, 1}, {1, 1}, {2, 1}},
                               {{2, 1}, {3, 1}, {1, 1}, {0, 1}},
                               {{0, 1}, {1, 1}, {2, 1}, {3, 1}},
                               {{1, 1}},
                               {{0, 322}},
                               {{0, 1}, {3, 1}},
                               {{0, 1}, {2, 1}},
                               {{0, 2}, {1, 3}, {2, 1}, {3, 5}},
                               {{0, 1}, {1, 90}, {2, 1}, {3, 33}},
                               {{0, 1}, {1, 1}, {2, 1}, {3, 1}}};

class CudaTurned : public testing::TestWithParam<TurnedCase> {};

TEST_P(CudaTurned, AttentionGivesTheSameBits) {
  const auto cuda = cuda_or_null();
  if (!cuda) GTEST_SKIP() << "no GPU, or built without CUDA";
  const TurnedCase& one = GetParam();
  constexpr std::int64_t kColumns = 256, kBlock = 16, kBlocks = 80, kAll = 5 * BlockTables::kGroups * kBlocks;
  const std::int64_t out_columns = one.shape.num_heads * one.shape.head_dim;
  const RopeTable rope = turning_rope(one.shape, 1.25f);
  const auto outputs_of = [&](bool joined) {
    Random random(19);
    const LinearCase bf16{.name = "BF16", .scheme = {}};
    const auto weight = cuda->prepare_linear(random_linear(bf16, one.shape.qkv_columns(), kColumns, random));
    const auto cache =
        cuda->make_kv_cache({2, kAll, kBlock, one.shape.num_kv_heads, one.shape.head_dim, one.cache});
    BlockTables tables(kBlock, kAll, kBlocks, 3);
    std::vector<Floats> outputs;
    for (const Step& step : kSteps) {
      const Batch batch = tables.next(step, one.sliding_window);
      const std::int64_t rows = batch.tokens();
      const auto in = encode(*cuda, random.normals(rows * kColumns), rows, kColumns, encoding_for(*weight));
      const auto qkv = cuda->make_intermediate(rows, one.shape.qkv_columns());
      const auto out = cuda->make_linear_input(rows, out_columns);
      const CacheLayer layer{1, 1, one.key_scale, one.value_scale};
      cuda->begin_step(batch, *cache);
      if (joined) {
        cuda->qkv_linear(*in, *weight, one.shape, rope, layer, *qkv);
      } else {
        cuda->linear(*in, *weight, *qkv);
        cuda->rope_and_store(one.shape, rope, layer, *qkv);
      }
      cuda->attention(one.shape, layer, one.sliding_window, *qkv, {}, *out);
      outputs.push_back(read_all(*cuda, *out));
    }
    return outputs;
  };
  const std::vector<Floats> apart = outputs_of(false), joined = outputs_of(true);
  for (std::size_t i = 0; i < apart.size(); ++i)
    EXPECT_TRUE(within(joined[i], apart[i], std::vector<double>(apart[i].size()), out_columns))
        << "step " << i;
}

const std::vector<TurnedCase> kCases{
    {"8x2x128", {8, 2, 128}},
    {"9x3x64", {9, 3, 64}},
    {"window_40_4x1x128", {4, 1, 128}, 40},
    {"window_530_2x2x64", {2, 2, 64}, 530},
    {"float8_8x2x128", {8, 2, 128}, 0, DType::kF8E4M3, 0.5f, 0.25f},
    {"float8_window_7_9x3x64", {9, 3, 64}, 7, DType::kF8E4M3, 0.03f, 0.7f},
};

INSTANTIATE_TEST_SUITE_P(Cases, CudaTurned, testing::ValuesIn(kCases),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace bise
