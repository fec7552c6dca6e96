// Sequences in a paged cache, cut into steps and batches as a case says, run through rope_and_store and
// attention.
#pragma once

#include <map>

#include "tests/backend/conformance.h"

namespace bise {

struct Turn {
  std::int64_t sequence, queries;
};
using Step = std::vector<Turn>;  // the sequences of one batch

struct AttentionCase {
  std::string name;
  AttentionShape shape;
  std::int64_t sliding_window = 0;
  std::vector<Step> steps;
};

inline void PrintTo(const AttentionCase& one, std::ostream* out) {
  *out << one.name;
}

inline const std::vector<Step> kPrefill{{{0, 37}}};
inline const std::vector<Step> kChunked{{{0, 20}}, {{0, 13}}, {{0, 31}}, {{0, 1}}};
inline const std::vector<Step> kMixed{{{0, 45}},
                                      {{1, 33}, {0, 1}},
                                      {{2, 7}, {0, 1}, {1, 10}, {3, 1}},
                                      {{0, 1}, {1, 1}, {2, 1}, {3, 1}},
                                      {{3, 18}, {1, 1}}};
inline const std::vector<Step> kLong{{{0, 290}}, {{0, 1}, {1, 70}}, {{1, 1}, {0, 64}}, {{0, 1}, {1, 1}}};
// Contexts long enough that backends divide them.
inline const std::vector<Step> kDivided{{{0, 700}, {1, 3}},
                                        {{0, 1}, {1, 520}, {2, 1}},
                                        {{0, 400}, {1, 1}, {2, 2}},
                                        {{0, 1}, {1, 1}, {2, 1}},
                                        {{0, 5}, {1, 14}, {2, 1}}};

inline const std::vector<AttentionCase>& attention_cases() {
  static const std::vector<AttentionCase> cases{
      {"prefill_9x3x64", {9, 3, 64}, 0, kPrefill},
      {"chunked_9x3x64", {9, 3, 64}, 0, kChunked},
      {"mixed_9x3x64", {9, 3, 64}, 0, kMixed},
      {"long_9x3x64", {9, 3, 64}, 0, kLong},
      {"window_7_mixed_9x3x64", {9, 3, 64}, 7, kMixed},
      {"window_40_long_9x3x64", {9, 3, 64}, 40, kLong},
      {"window_16_chunked_8x2x128", {8, 2, 128}, 16, kChunked},
      {"window_1_mixed_4x4x32", {4, 4, 32}, 1, kMixed},
      {"mixed_4x4x32", {4, 4, 32}, 0, kMixed},
      {"mixed_8x2x128", {8, 2, 128}, 0, kMixed},
      {"mixed_8x1x96", {8, 1, 96}, 0, kMixed},
      {"mixed_8x2x80", {8, 2, 80}, 0, kMixed},
      {"long_8x1x128", {8, 1, 128}, 0, kLong},
      {"chunked_1x1x16", {1, 1, 16}, 0, kChunked},
      {"divided_4x1x128", {4, 1, 128}, 0, kDivided},
      {"window_530_divided_2x2x64", {2, 2, 64}, 530, kDivided},
  };
  return cases;
}

// The query, key and value rows of each sequence, before rotation.
class Histories {
 public:
  Histories(const AttentionCase& one, std::uint32_t seed, bool poison = false)
      : columns_(one.shape.qkv_columns()) {
    for (const Step& step : one.steps)
      for (const Turn& turn : step) lengths_[turn.sequence] += turn.queries;
    Random random(seed);
    for (const auto& [sequence, length] : lengths_) {
      rows_[sequence] = random.normals(length * columns_, 1.5f);
      if (poison)
        for (float& value : rows_[sequence]) value *= 1e18f;
    }
  }

  const std::map<std::int64_t, std::int64_t>& lengths() const { return lengths_; }
  std::span<const float> rows(std::int64_t sequence, std::int64_t first, std::int64_t count) const {
    return std::span(rows_.at(sequence)).subspan(as_size(first * columns_), as_size(count * columns_));
  }

 private:
  std::int64_t columns_;
  std::map<std::int64_t, std::int64_t> lengths_;
  std::map<std::int64_t, Floats> rows_;
};

// Gives each sequence blocks of the cache in a shuffled order, for each of two groups, takes back those of
// group 1 behind a sliding window, and builds batches.
class BlockTables {
 public:
  static constexpr std::int64_t kGroups = 2;

  BlockTables(std::int64_t block_size, std::int64_t num_blocks, std::int64_t blocks_per_sequence,
              std::uint32_t seed)
      : block_size_(block_size), blocks_per_sequence_(blocks_per_sequence), free_(as_size(num_blocks)) {
    std::iota(free_.begin(), free_.end(), 0);
    Random(seed).shuffle(free_);
  }

  // The batch of `step`; its spans stay valid until the next call.
  Batch next(const Step& step, std::int64_t sliding_window) {
    token_ids_.clear(), positions_.clear(), context_lengths_.clear(), table_.clear();
    query_starts_.assign(1, 0);
    for (const Turn& turn : step) {
      std::vector<std::int32_t>& blocks = blocks_[turn.sequence];
      std::int64_t& length = lengths_[turn.sequence];
      blocks.resize(as_size(kGroups * blocks_per_sequence_), -1);
      for (std::int64_t position = length; position < length + turn.queries; ++position) {
        token_ids_.push_back(static_cast<std::int32_t>(position % 7));
        positions_.push_back(static_cast<std::int32_t>(position));
        for (std::int64_t group = 0; group < kGroups; ++group) {
          std::int32_t& block = blocks[as_size(group * blocks_per_sequence_ + position / block_size_)];
          if (block < 0) block = take();
        }
      }
      // Block i is dead when its last position (i + 1) * size - 1 <= first query - window.
      for (std::int64_t i = 0; sliding_window > 0 && (i + 1) * block_size_ - 1 <= length - sliding_window;
           ++i)
        release(blocks[as_size(blocks_per_sequence_ + i)]);
      length += turn.queries;
      context_lengths_.push_back(static_cast<std::int32_t>(length));
      query_starts_.push_back(static_cast<std::int32_t>(positions_.size()));
      table_.insert(table_.end(), blocks.begin(), blocks.end());
    }
    return {token_ids_, positions_, query_starts_, context_lengths_, table_, blocks_per_sequence_, kGroups};
  }

  std::int64_t length(std::int64_t sequence) const { return lengths_.at(sequence); }

 private:
  std::int32_t take() {
    const std::int32_t block = free_.back();
    free_.pop_back();
    return block;
  }
  void release(std::int32_t& block) {
    if (block >= 0) free_.insert(free_.begin(), block);
    block = -1;
  }

  std::int64_t block_size_, blocks_per_sequence_;
  std::vector<std::int32_t> free_;
  std::map<std::int64_t, std::vector<std::int32_t>> blocks_;
  std::map<std::int64_t, std::int64_t> lengths_;
  std::vector<std::int32_t> token_ids_, positions_, query_starts_, context_lengths_, table_;
};

struct AttentionRun {
  RopeTable rope;
  std::int64_t block_size = 16;
  DType cache_dtype = DType::kBF16;
  float key_scale = 1, value_scale = 1;
  std::uint32_t table_seed = 1;
  InputEncoding encoding = {};
};

// No rotation: keys reach the cache unchanged.
inline RopeTable still_rope(const AttentionShape& shape) {
  return {Floats(as_size(shape.head_dim / 2), 0.0f), 1};
}

inline RopeTable turning_rope(const AttentionShape& shape, float attention_factor = 1) {
  RopeTable rope{Floats(as_size(shape.head_dim / 2)), attention_factor};
  for (std::size_t i = 0; i < rope.inv_freq.size(); ++i)
    rope.inv_freq[i] = std::pow(10000.0f, -2.0f * static_cast<float>(i) / static_cast<float>(shape.head_dim));
  return rope;
}

// The attention output of every position of each sequence, slot 1 of group 1. The cache has first been filled
// with large values through the same blocks, and slot 0 of group 0 holds other values.
inline std::map<std::int64_t, Floats> run_attention(Backend& backend, const AttentionCase& one,
                                                    const AttentionRun& how) {
  const Histories histories(one, 7), others(one, 8), poison(one, 9, true);
  std::int64_t blocks_per_sequence = 0, tokens = 0;
  for (const auto& [sequence, length] : histories.lengths()) {
    blocks_per_sequence = std::max(blocks_per_sequence, length / how.block_size + 1);
    tokens += length;
  }
  const std::int64_t num_blocks =
      BlockTables::kGroups * blocks_per_sequence * static_cast<std::int64_t>(histories.lengths().size());
  const auto cache = backend.make_kv_cache(
      {2, num_blocks, how.block_size, one.shape.num_kv_heads, one.shape.head_dim, how.cache_dtype});
  const auto qkv = backend.make_matrix(tokens, one.shape.qkv_columns());
  const auto out = backend.make_linear_input(tokens, one.shape.num_heads * one.shape.head_dim);
  std::map<std::int64_t, Floats> outputs;
  for (const bool poisoning : {true, false}) {
    BlockTables tables(how.block_size, num_blocks, blocks_per_sequence, how.table_seed);
    for (const Step& step : one.steps) {
      const Batch batch = tables.next(step, poisoning ? 0 : one.sliding_window);
      backend.begin_step(batch, *cache);
      for (const std::int64_t layer : {0, 1}) {
        const Histories& source = poisoning ? poison : layer == 0 ? others : histories;
        Floats rows;
        for (const Turn& turn : step) {
          const auto part =
              source.rows(turn.sequence, tables.length(turn.sequence) - turn.queries, turn.queries);
          rows.insert(rows.end(), part.begin(), part.end());
        }
        backend.write(rows, batch.tokens(), *qkv);
        const CacheLayer place{layer, layer, how.key_scale, how.value_scale};
        backend.rope_and_store(one.shape, how.rope, place, *qkv);
        if (layer == 1 && !poisoning)
          backend.attention(one.shape, place, one.sliding_window, *qkv, how.encoding, *out);
      }
      if (poisoning) continue;
      const Floats values = read_all(backend, *out);
      std::size_t at = 0;
      for (const Turn& turn : step) {
        const std::size_t count = as_size(turn.queries * out->columns());
        Floats& target = outputs[turn.sequence];
        target.insert(target.end(), values.begin() + static_cast<std::ptrdiff_t>(at),
                      values.begin() + static_cast<std::ptrdiff_t>(at + count));
        at += count;
      }
    }
  }
  return outputs;
}

}  // namespace bise
