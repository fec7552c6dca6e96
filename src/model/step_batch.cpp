#include "model/step_batch.h"

#include <algorithm>

#include "base/check.h"

namespace bise {

StepBatch::StepBatch(std::int64_t max_tokens, std::int64_t max_sequences, std::int64_t blocks_per_sequence,
                     std::int64_t groups)
    : max_tokens_(max_tokens),
      max_sequences_(max_sequences),
      blocks_per_sequence_(blocks_per_sequence),
      groups_(groups),
      block_table_(static_cast<std::size_t>(max_sequences * groups * blocks_per_sequence)) {
  token_ids_.reserve(static_cast<std::size_t>(max_tokens));
  positions_.reserve(static_cast<std::size_t>(max_tokens));
  query_starts_.reserve(static_cast<std::size_t>(max_sequences + 1));
  context_lengths_.reserve(static_cast<std::size_t>(max_sequences));
  clear();
}

void StepBatch::clear() {
  token_ids_.clear();
  positions_.clear();
  query_starts_.assign(1, 0);
  context_lengths_.clear();
}

void StepBatch::add_tokens(std::span<const std::int32_t> token_ids, std::int64_t computed) {
  const auto count = static_cast<std::int64_t>(token_ids.size());
  check(count > 0 && count <= free_tokens() && sequences() < max_sequences_, "the step has room");
  token_ids_.insert(token_ids_.end(), token_ids.begin(), token_ids.end());
  for (std::int64_t i = 0; i < count; ++i) positions_.push_back(static_cast<std::int32_t>(computed + i));
  query_starts_.push_back(static_cast<std::int32_t>(token_ids_.size()));
  context_lengths_.push_back(static_cast<std::int32_t>(computed + count));
}

// Of the sequence added last.
void StepBatch::add_table(std::int64_t group, std::span<const std::int32_t> blocks) {
  check(static_cast<std::int64_t>(blocks.size()) <= blocks_per_sequence_, "the block table has room");
  const std::int64_t entry = ((sequences() - 1) * groups_ + group) * blocks_per_sequence_;
  const auto end =
      std::copy(blocks.begin(), blocks.end(), block_table_.begin() + static_cast<std::ptrdiff_t>(entry));
  // What another sequence left there is no block of this one.
  if (static_cast<std::int64_t>(blocks.size()) < blocks_per_sequence_) *end = -1;
}

void StepBatch::add(std::span<const std::int32_t> token_ids, std::int64_t computed,
                    std::span<const std::span<const std::int32_t>> block_tables) {
  check(static_cast<std::int64_t>(block_tables.size()) == groups_, "every group has a block table");
  add_tokens(token_ids, computed);
  for (std::int64_t group = 0; group < groups_; ++group)
    add_table(group, block_tables[static_cast<std::size_t>(group)]);
}

void StepBatch::add(std::span<const std::int32_t> token_ids, std::int64_t computed,
                    std::span<const std::int32_t> blocks) {
  const auto groups = static_cast<std::size_t>(groups_);
  check(blocks.size() % groups == 0, "every group has a block table");
  const std::size_t count = blocks.size() / groups;
  add_tokens(token_ids, computed);
  for (std::size_t group = 0; group < groups; ++group)
    add_table(static_cast<std::int64_t>(group), blocks.subspan(group * count, count));
}

Batch StepBatch::view() const {
  const auto entries = static_cast<std::size_t>(sequences() * groups_ * blocks_per_sequence_);
  return {token_ids_,
          positions_,
          query_starts_,
          context_lengths_,
          std::span(block_table_).first(entries),
          blocks_per_sequence_,
          groups_};
}

}  // namespace bise
