#include "model/step_batch.h"

#include <algorithm>

#include "base/check.h"

namespace bise {

StepBatch::StepBatch(std::int64_t max_tokens, std::int64_t max_sequences, std::int64_t blocks_per_sequence)
    : max_tokens_(max_tokens), max_sequences_(max_sequences), blocks_per_sequence_(blocks_per_sequence) {
  token_ids_.reserve(static_cast<std::size_t>(max_tokens));
  positions_.reserve(static_cast<std::size_t>(max_tokens));
  query_starts_.reserve(static_cast<std::size_t>(max_sequences + 1));
  context_lengths_.reserve(static_cast<std::size_t>(max_sequences));
  block_table_.reserve(static_cast<std::size_t>(max_sequences * blocks_per_sequence));
  clear();
}

void StepBatch::clear() {
  token_ids_.clear();
  positions_.clear();
  query_starts_.assign(1, 0);
  context_lengths_.clear();
  block_table_.clear();
}

void StepBatch::add(std::span<const std::int32_t> token_ids, std::int64_t computed,
                    std::span<const std::int32_t> blocks) {
  const auto count = static_cast<std::int64_t>(token_ids.size());
  check(count > 0 && count <= free_tokens() && sequences() < max_sequences_, "the step has room");
  check(static_cast<std::int64_t>(blocks.size()) <= blocks_per_sequence_, "the block table has room");
  token_ids_.insert(token_ids_.end(), token_ids.begin(), token_ids.end());
  for (std::int64_t i = 0; i < count; ++i) positions_.push_back(static_cast<std::int32_t>(computed + i));
  query_starts_.push_back(static_cast<std::int32_t>(token_ids_.size()));
  context_lengths_.push_back(static_cast<std::int32_t>(computed + count));
  block_table_.insert(block_table_.end(), blocks.begin(), blocks.end());
  block_table_.resize(static_cast<std::size_t>(sequences() * blocks_per_sequence_), -1);
}

Batch StepBatch::view() const {
  return {token_ids_, positions_, query_starts_, context_lengths_, block_table_, blocks_per_sequence_};
}

}  // namespace bise
