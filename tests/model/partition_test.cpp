// A model divided among ranks: parts of stored layers, and whole decoders whose sums are added.
#include "model/partition.h"

#include <gtest/gtest.h>

#include <barrier>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "tensor/slice_linear.h"
#include "tests/backend/conformance.h"
#include "tests/model/tiny_model.h"

namespace bise {
namespace {

constexpr std::int64_t kRows = 256, kColumns = 384;

LinearCase int4(std::string name, bool packed, bool symmetric, bool g_idx) {
  const Scheme scheme{WeightType::kInt, 4, Strategy::kGroup, 64, symmetric, InputType::kNone};
  return {.name = std::move(name), .scheme = scheme, .packed = packed, .g_idx = g_idx};
}

std::vector<LinearCase> kinds() {
  const Scheme bf16, nf4{.type = WeightType::kNf4, .num_bits = 4, .group_size = 64};
  const Scheme fp8{WeightType::kFloat, 8, Strategy::kChannel, 0, true, InputType::kFp8Token};
  const Scheme fp8_tensor{WeightType::kFloat, 8, Strategy::kTensor, 0, true, InputType::kFp8Tensor};
  const Scheme fp8_block{WeightType::kFloat, 8, Strategy::kBlock, 0, true, InputType::kFp8Token};
  const Scheme int8{WeightType::kInt, 8, Strategy::kChannel, 0, true, InputType::kInt8Token};
  return {{.name = "BF16", .scheme = bf16, .bias = true},
          {.name = "FP8", .scheme = fp8, .bias = true},
          {.name = "FP8_tensor", .scheme = fp8_tensor},
          {.name = "FP8_block", .scheme = fp8_block},
          {.name = "W8A8", .scheme = int8},
          {.name = "NF4", .scheme = nf4},
          int4("W4A16", true, true, false),
          int4("W4A16_ASYM", true, false, false),
          int4("W4A16_bytes", false, false, false),
          int4("W4A16_g_idx", true, false, true)};
}

Floats dequantized_part(const StoredLinear& linear) {
  return dequantized({linear});
}

class SliceLinear : public testing::TestWithParam<LinearCase> {};

TEST_P(SliceLinear, RowsAreTheLayersRows) {
  Random random(1);
  const StoredLinear linear = random_part(GetParam(), kRows, kColumns, random);
  const Floats whole = dequantized_part(linear);
  for (const Slice rows : {Slice{0, 128}, Slice{128, 256}}) {
    const StoredLinear part = slice_rows(linear, rows);
    ASSERT_EQ(part.rows, 128);
    const auto first = whole.begin() + rows.begin * kColumns;
    EXPECT_EQ(dequantized_part(part), Floats(first, first + 128 * kColumns));
    EXPECT_EQ(part.bias.empty(), linear.bias.empty());
    if (!part.bias.empty()) {
      EXPECT_EQ(part.bias.elements(), 128);
    }
  }
}

TEST_P(SliceLinear, ColumnsAreTheLayersColumns) {
  Random random(2);
  const StoredLinear linear = random_part(GetParam(), kRows, kColumns, random);
  const Floats whole = dequantized_part(linear);
  for (const Slice columns : {Slice{0, 128}, Slice{128, 384}}) {
    const StoredLinear part = slice_columns(linear, columns);
    const std::int64_t count = columns.end - columns.begin;
    Floats expected;
    for (std::int64_t row = 0; row < kRows; ++row) {
      const auto first = whole.begin() + row * kColumns + columns.begin;
      expected.insert(expected.end(), first, first + count);
    }
    EXPECT_EQ(dequantized_part(part), expected);
    EXPECT_EQ(part.bias.empty(), linear.bias.empty() || columns.begin > 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Schemes, SliceLinear, testing::ValuesIn(kinds()), case_name);

TEST(SliceLinear, CutsThroughNothingStoredTogether) {
  Random random(3);
  const auto part = [&](const LinearCase& kind) { return random_part(kind, kRows, kColumns, random); };
  for (const LinearCase& kind : kinds()) {
    SCOPED_TRACE(kind.name);
    const StoredLinear linear = part(kind);
    const bool groups = kind.scheme.strategy == Strategy::kGroup && !kind.g_idx;
    if (groups || kind.scheme.type == WeightType::kNf4 || kind.scheme.strategy == Strategy::kBlock) {
      EXPECT_THROW(slice_columns(linear, {0, 96}), Error);
    }
    if (kind.packed) {
      EXPECT_THROW(slice_columns(linear, {0, 12}), Error);
    }
    if (kind.packed && !kind.scheme.symmetric) {
      EXPECT_THROW(slice_rows(linear, {4, 8}), Error);
    }
    if (kind.scheme.strategy == Strategy::kBlock) {
      EXPECT_THROW(slice_rows(linear, {64, 256}), Error);
    }
  }
}

// Ranks as threads of this process, each with a backend of its own, that add through the host's memory.
class LocalRanks {
 public:
  explicit LocalRanks(std::int64_t ranks) : barrier_(ranks), values_(static_cast<std::size_t>(ranks)) {}

  Partition partition(Backend& backend, std::int64_t rank) {
    const auto ranks = static_cast<std::int64_t>(values_.size());
    return {rank, ranks, [this, &backend, rank](Matrix& matrix) {
              Floats& mine = values_[static_cast<std::size_t>(rank)];
              mine = read_all(backend, matrix);
              barrier_.arrive_and_wait();
              Floats sum(mine.size());
              for (const Floats& each : values_)
                for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += each[i];
              barrier_.arrive_and_wait();
              backend.write(sum, matrix.rows(), matrix);
            }};
  }

 private:
  std::barrier<> barrier_;
  std::vector<Floats> values_;
};

// The logits of each rank, all weights from the same seed as tiny_model's.
std::vector<Floats> logits_of_ranks(const ModelConfig& config, std::int64_t ranks,
                                    const std::vector<std::int32_t>& tokens) {
  LocalRanks local(ranks);
  std::vector<Floats> logits(static_cast<std::size_t>(ranks));
  std::vector<std::jthread> threads;
  for (std::int64_t rank = 0; rank < ranks; ++rank)
    threads.emplace_back([&, rank] {
      const auto backend = make_reference_backend();
      const Partition partition = local.partition(*backend, rank);
      const ModelConfig mine = share_of(config, partition);
      const TinyModel model = tiny_model(*backend, config, 1, &partition);
      Decoder decoder(*backend, mine, model.weights, {.max_tokens = 64, .max_logit_rows = 64},
                      make_kv_layout(mine), partition);
      logits[static_cast<std::size_t>(rank)] = all_logits(decoder, tokens, 7, DType::kF32);
    });
  threads.clear();
  return logits;
}

// float32 sums in another order: 64 + 192 terms and two layers.
TEST(Partition, RanksGiveTheModelsLogits) {
  ModelConfig experts = tiny_config();
  experts.architecture = "MixtralForCausalLM";
  experts.num_local_experts = 4;
  experts.num_experts_per_tok = 2;
  for (const ModelConfig& config : {tiny_config(), experts})
    for (const std::int64_t ranks : {2, 4}) {  // 4: two ranks share a key-value head
      SCOPED_TRACE(config.architecture + ", " + std::to_string(ranks) + " ranks");
      const auto backend = make_reference_backend();
      const TinyModel model = tiny_model(*backend, config);
      Decoder decoder(*backend, config, model.weights, {.max_tokens = 64, .max_logit_rows = 64});
      const auto tokens = random_tokens(20, config.vocab_size, 5);
      const Floats expected = all_logits(decoder, tokens, 7, DType::kF32);
      const std::vector<Floats> logits = logits_of_ranks(config, ranks, tokens);
      for (const Floats& each : logits) EXPECT_EQ(each, logits.front());
      ASSERT_EQ(logits.front().size(), expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i)
        ASSERT_NEAR(logits.front()[i], expected[i], 1e-4 * (1 + std::abs(expected[i]))) << i;
    }
}

TEST(Partition, WhatDoesNotDivideIsAnError) {
  EXPECT_THROW(share_of(tiny_config(), Partition{0, 3, {}}), Error);  // 4 heads
  EXPECT_THROW(share_of(tiny_config(), Partition{0, 8, {}}), Error);
}

}  // namespace
}  // namespace bise
