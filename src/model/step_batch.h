// The arrays behind a Batch, allocated once and refilled every step. One thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace bise {

class StepBatch {
 public:
  // Room for `max_tokens` tokens of `max_sequences` sequences, each with `groups` block tables of up to
  // `blocks_per_sequence` blocks.
  StepBatch(std::int64_t max_tokens, std::int64_t max_sequences, std::int64_t blocks_per_sequence,
            std::int64_t groups = 1);

  void clear();
  // Appends the next tokens of a sequence that has `computed` tokens in the cache. `block_tables` are its
  // groups' tables, long enough for computed + token_ids.size() tokens.
  void add(std::span<const std::int32_t> token_ids, std::int64_t computed,
           std::span<const std::span<const std::int32_t>> block_tables);
  // The same with tables of equal length that stand in `blocks` one after the other.
  void add(std::span<const std::int32_t> token_ids, std::int64_t computed,
           std::span<const std::int32_t> blocks);

  std::int64_t tokens() const { return static_cast<std::int64_t>(token_ids_.size()); }
  std::int64_t sequences() const { return static_cast<std::int64_t>(context_lengths_.size()); }
  std::int64_t free_tokens() const { return max_tokens_ - tokens(); }
  // The row of the last token added: its logits predict the sequence's next token.
  std::int32_t last_row() const { return static_cast<std::int32_t>(token_ids_.size()) - 1; }
  // Valid until the next clear() or add().
  Batch view() const;

 private:
  void add_tokens(std::span<const std::int32_t> token_ids, std::int64_t computed);
  void add_table(std::int64_t group, std::span<const std::int32_t> blocks);

  std::int64_t max_tokens_, max_sequences_, blocks_per_sequence_, groups_;
  std::vector<std::int32_t> token_ids_, positions_, query_starts_, context_lengths_;
  std::vector<std::int32_t> block_table_;  // [max_sequences, groups, blocks_per_sequence]
};

}  // namespace bise
