// Rotary embedding and paged attention of every CPU backend against reference/.
#include "tests/backend/attention_cases.h"

namespace bise {
namespace {

// Per output value of one sequence, in units of the largest value it averages. Scores are float32 sums of
// head_dim products (see Layer::tolerance in linear_test.cpp), bounded by the lengths of q and k; a score's
// error e multiplies its weight by exp(+-e), above and below the fraction: 2 e. The exponential, its sum
// over n positions and the average add rounding of their own, 16 + 2 sqrt(n) units.
// A key that the rotation rounds differently may fall on the next bfloat16, once or twice a row: each moves
// a score by one step of one product.
// Tiles take queries and softmax weights as bfloat16: a query's roundings, up to one unit each, add up to a
// score's like a random walk over head_dim products of size |q| |k| / head_dim, of which 4 / sqrt(3) are
// four standard deviations; a weight's rounding moves the average by a unit of the value.
std::vector<double> attention_tolerance(const AttentionCase& one, std::int64_t sequence, bool rotated,
                                        bool tiles) {
  const Histories histories(one, 7);
  const AttentionShape& shape = one.shape;
  const std::int64_t length = histories.lengths().at(sequence), d = shape.head_dim;
  const auto rows = histories.rows(sequence, 0, length);
  const auto head = [&](std::int64_t row, std::int64_t column) {
    return rows.subspan(as_size(row * shape.qkv_columns() + column * d), as_size(d));
  };
  const double scale = 1 / std::sqrt(static_cast<double>(d));
  struct Seen {  // the largest so far of one key and value head
    double key_length = 0, key = 0, value = 0;
  };
  std::vector<Seen> seen(as_size(shape.num_kv_heads));
  std::vector<double> tolerance;
  for (std::int64_t p = 0; p < length; ++p) {
    for (std::int64_t kv = 0; kv < shape.num_kv_heads; ++kv) {
      Seen& past = seen[as_size(kv)];
      const auto key = head(p, shape.num_heads + kv);
      past.key_length = std::max(past.key_length, row_lengths(key, d)[0]);
      past.key = std::max<double>(past.key, largest_of(key));
      past.value =
          std::max<double>(past.value, largest_of(head(p, shape.num_heads + shape.num_kv_heads + kv)));
    }
    for (std::int64_t h = 0; h < shape.num_heads; ++h) {
      const Seen& past = seen[as_size(h / (shape.num_heads / shape.num_kv_heads))];
      const double steps = 2 * std::sqrt(static_cast<double>(d)) + 4;
      const double score_size = row_lengths(head(p, h), d)[0] * past.key_length * scale;
      double score_error = kUnit * steps * score_size;
      // Rotation mixes two values: up to sqrt(2) each.
      if (rotated) score_error += 2 * 2 * kBf16Unit * 2 * largest_of(head(p, h)) * past.key * scale;
      double own = kUnit * (16 + 2 * std::sqrt(static_cast<double>(p + 1)));
      if (tiles) {
        score_error += kBf16Unit * 4 / std::sqrt(3.0) * score_size / std::sqrt(static_cast<double>(d));
        own += kBf16Unit;
      }
      tolerance.insert(tolerance.end(), as_size(d), (2 * score_error + own) * past.value);
    }
  }
  return tolerance;
}

using Tolerances = std::map<std::int64_t, std::vector<double>>;  // by sequence

// By whether the variant has tiles.
std::map<bool, Tolerances> attention_tolerances(const AttentionCase& one, bool rotated) {
  std::map<bool, Tolerances> tolerances;
  const Histories histories(one, 7);
  for (const auto& [sequence, length] : histories.lengths())
    for (const bool tiles : {false, true})
      tolerances[tiles][sequence] = attention_tolerance(one, sequence, rotated, tiles);
  return tolerances;
}

void expect_equal_outputs(const std::map<std::int64_t, Floats>& actual,
                          const std::map<std::int64_t, Floats>& expected, std::int64_t columns) {
  for (const auto& [sequence, values] : expected)
    ASSERT_TRUE(identical(actual.at(sequence), values, columns)) << "sequence " << sequence;
}

class Attention : public testing::TestWithParam<AttentionCase> {
 protected:
  std::int64_t columns() const { return GetParam().shape.num_heads * GetParam().shape.head_dim; }

  void expect_conformance(bool rotated, InputEncoding encoding = {}) {
    const AttentionCase& one = GetParam();
    AttentionRun how{.rope = rotated ? turning_rope(one.shape) : still_rope(one.shape)};
    const auto expected = run_attention(reference(), one, how);
    std::map<bool, Tolerances> slack = attention_tolerances(one, rotated);
    how.encoding = encoding;
    for_each_variant([&](const Variant& variant) {
      how.block_size = variant.backend->preferred_block_size();
      const auto actual = run_attention(*variant.backend, one, how);
      for (const auto& [sequence, values] : expected) {
        const auto tolerance =
            with_encoding(slack[variant.rounds_to_bf16()][sequence], variant, encoding, values, columns());
        ASSERT_TRUE(within(actual.at(sequence), values, tolerance, columns())) << "sequence " << sequence;
      }
    });
  }
};

TEST_P(Attention, AgreesWithReference) {
  expect_conformance(false);
}

TEST_P(Attention, AgreesWithReferenceAfterRotation) {
  expect_conformance(true);
}

// Keys do not turn, so that all store the same codes; those are up to 1/16 larger than what they stand for.
TEST_P(Attention, Float8CacheAgreesWithReference) {
  const AttentionCase& one = GetParam();
  AttentionRun how{.rope = still_rope(one.shape),
                   .cache_dtype = DType::kF8E4M3,
                   .key_scale = 0.013f,
                   .value_scale = 0.03f};
  const auto expected = run_attention(reference(), one, how);
  std::map<bool, Tolerances> slack = attention_tolerances(one, false);
  for (auto& [tiles, tolerances] : slack)
    for (auto& [sequence, values] : tolerances)
      for (double& value : values) value *= 17.0 / 16;
  for_each_variant([&](const Variant& variant) {
    for (const std::int64_t block_size : {variant.backend->preferred_block_size(), std::int64_t{8}}) {
      how.block_size = block_size;
      const auto actual = run_attention(*variant.backend, one, how);
      for (const auto& [sequence, values] : expected) {
        const auto tolerance =
            with_encoding(slack[variant.rounds_to_bf16()][sequence], variant, {}, values, columns());
        ASSERT_TRUE(within(actual.at(sequence), values, tolerance, columns())) << "sequence " << sequence;
      }
    }
  });
}

TEST_P(Attention, EncodesItsOutput) {
  for (const InputEncoding encoding :
       {InputEncoding{InputType::kInt8Token}, InputEncoding{InputType::kFp8Token},
        InputEncoding{InputType::kFp8Tensor, 0.01f}})
    expect_conformance(false, encoding);
}

// The same bits however a prompt is cut, whichever sequences share the batch, wherever the blocks are and
// whatever the number of threads.
TEST_P(Attention, RowsDoNotDependOnTheBatchOrThreads) {
  AttentionCase alone = GetParam();
  const Histories histories(alone, 7);
  alone.steps.clear();
  for (const auto& [sequence, length] : histories.lengths()) alone.steps.push_back({{sequence, length}});
  AttentionCase pieces = alone;
  pieces.steps.clear();
  for (const auto& [sequence, length] : histories.lengths())
    for (std::int64_t done = 0; done < length; done += 11)
      pieces.steps.push_back({{sequence, std::min<std::int64_t>(11, length - done)}});
  for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
    SCOPED_TRACE(dtype_name(dtype));
    std::map<std::string, std::map<std::int64_t, Floats>> by_kind;
    for_each_variant([&](const Variant& variant) {
      AttentionRun how{.rope = turning_rope(alone.shape),
                       .block_size = variant.backend->preferred_block_size(),
                       .cache_dtype = dtype,
                       .key_scale = 0.02f,
                       .value_scale = 0.05f};
      const auto outputs = run_attention(*variant.backend, GetParam(), how);
      {
        SCOPED_TRACE("with another number of threads");
        expect_equal_outputs(outputs, by_kind.try_emplace(variant.kind, outputs).first->second, columns());
      }
      how.table_seed = 2;
      SCOPED_TRACE("each sequence alone, in other blocks");
      expect_equal_outputs(run_attention(*variant.backend, alone, how), outputs, columns());
      SCOPED_TRACE("in chunks of 11");
      expect_equal_outputs(run_attention(*variant.backend, pieces, how), outputs, columns());
    });
  }
}

TEST_P(Attention, AnyBlockSize) {
  const AttentionCase& one = GetParam();
  AttentionRun how{.rope = still_rope(one.shape)};
  const auto expected = run_attention(reference(), one, how);
  std::map<bool, Tolerances> slack = attention_tolerances(one, false);
  for_each_variant([&](const Variant& variant) {
    if (variant.threads > 1) return;
    for (const std::int64_t block_size : {8, 16, 64}) {
      SCOPED_TRACE(testing::Message() << "blocks of " << block_size);
      how.block_size = block_size;
      const auto actual = run_attention(*variant.backend, one, how);
      for (const auto& [sequence, values] : expected) {
        const auto tolerance =
            with_encoding(slack[variant.rounds_to_bf16()][sequence], variant, {}, values, columns());
        ASSERT_TRUE(within(actual.at(sequence), values, tolerance, columns())) << "sequence " << sequence;
      }
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Cases, Attention, testing::ValuesIn(attention_cases()),
                         [](const auto& info) { return info.param.name; });

// Rotation at positions up to 32767, where the rounding of position * frequency to float32 shows: two
// products and a sum, with sine and cosine each within a few units.
TEST(Rope, AgreesWithReference) {
  constexpr AttentionShape kShape{3, 1, 64};
  constexpr std::int64_t kBlock = 16;
  Random random(2);
  for_each_variant([&](const Variant& variant) {
    for (const float factor : {1.0f, 1.2f})
      for (const std::int32_t context : {1, 500, 8192, 32768}) {
        SCOPED_TRACE(testing::Message() << "position " << context - 1);
        const Floats values = random.normals(kShape.qkv_columns());
        const std::vector<std::int32_t> ids{0}, positions{context - 1}, starts{0, 1}, lengths{context};
        std::vector<std::int32_t> table(as_size((context + kBlock - 1) / kBlock), -1);
        table.back() = 1;
        const Batch batch{ids, positions, starts, lengths, table, static_cast<std::int64_t>(table.size())};
        const auto rotated = [&](Backend& backend) {
          const auto cache = backend.make_kv_cache({1, 2, kBlock, 1, 64, DType::kBF16});
          const auto qkv = matrix_of(backend, values, 1, kShape.qkv_columns());
          backend.begin_step(batch, *cache);
          backend.rope_and_store(kShape, turning_rope(kShape, factor), {}, *qkv);
          return read_all(backend, *qkv);
        };
        std::vector<double> tolerance(values.size());
        for (std::size_t i = 0; i < values.size() - 64; ++i)  // v is not rotated
          tolerance[i] =
              8 * kUnit *
              (std::fabs(static_cast<double>(values[i])) + std::fabs(static_cast<double>(values[i ^ 32])));
        EXPECT_TRUE(within(rotated(*variant.backend), rotated(reference()), tolerance, 64));
      }
  });
}

TEST(BeginStep, RefusesABrokenBatch) {
  const auto expect_refusal = [](Backend& backend) {
    const std::int64_t block_size = backend.preferred_block_size();
    const auto cache = backend.make_kv_cache({1, 4, block_size, 1, 64, DType::kBF16});
    const std::vector<std::int32_t> ids{5, 6}, positions{0, 1}, starts{0, 2}, lengths{2}, table{3};
    EXPECT_NO_THROW(backend.begin_step({ids, positions, starts, lengths, table, 1}, *cache));
    const std::vector<std::int32_t> too_far{4}, below{-2}, short_starts{0, 1}, one_position{0};
    const std::vector<std::int32_t> too_long{static_cast<std::int32_t>(block_size + 1)};
    EXPECT_ANY_THROW(backend.begin_step({ids, positions, starts, lengths, too_far, 1}, *cache));
    EXPECT_ANY_THROW(backend.begin_step({ids, positions, starts, lengths, below, 1}, *cache));
    EXPECT_ANY_THROW(backend.begin_step({ids, positions, short_starts, lengths, table, 1}, *cache));
    EXPECT_ANY_THROW(backend.begin_step({ids, one_position, starts, lengths, table, 1}, *cache));
    EXPECT_ANY_THROW(backend.begin_step({ids, positions, starts, too_long, table, 1}, *cache));
    EXPECT_ANY_THROW(backend.begin_step({ids, positions, starts, lengths, table, 2}, *cache));
  };
  expect_refusal(reference());
  for_each_variant([&](const Variant& variant) { expect_refusal(*variant.backend); });
}

}  // namespace
}  // namespace bise
