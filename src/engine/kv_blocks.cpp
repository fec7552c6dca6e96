#include "engine/kv_blocks.h"

#include <algorithm>

#include "base/check.h"

namespace bise {

KvBlocks::KvBlocks(const KvLayout& layout, std::int64_t num_blocks, std::int64_t block_size,
                   std::int64_t max_step_tokens)
    : block_size_(block_size), max_step_tokens_(max_step_tokens), pool_(num_blocks), cache_(num_blocks) {
  check(block_size > 0 && block_size <= BlockHasher::kMaxBlockSize, "a block has tokens");
  check(!layout.groups.empty(), "a model has KV groups");
  for (const KvLayout::Group& group : layout.groups) windows_.push_back(group.sliding_window);
}

std::int64_t KvBlocks::blocks_to_grow(const Sequence& sequence, std::int64_t tokens) const {
  const auto have = static_cast<std::int64_t>(sequence.block_tables.front().size());
  return groups() * std::max<std::int64_t>(blocks_for(tokens) - have, 0);
}

// A step of t tokens reads window - 1 tokens before them; neither end need be a block's.
std::int64_t KvBlocks::most_blocks(std::int64_t tokens, std::int64_t g) const {
  const std::int64_t window = windows_[static_cast<std::size_t>(g)], all = blocks_for(tokens);
  if (window == 0) return all;
  return std::min(all, blocks_for(window - 1 + std::min(tokens, max_step_tokens_)) + 1);
}

std::int64_t KvBlocks::most_blocks(std::int64_t tokens) const {
  std::int64_t sum = 0;
  for (std::int64_t g = 0; g < groups(); ++g) sum += most_blocks(tokens, g);
  return sum;
}

std::int64_t KvBlocks::longest_sequence(std::int64_t limit) const {
  std::int64_t fits = 0, fits_not = limit + 1;
  while (fits_not - fits > 1) {
    const std::int64_t tokens = fits + (fits_not - fits) / 2;
    (most_blocks(tokens) <= pool_.num_blocks() - 1 ? fits : fits_not) = tokens;
  }
  return fits;
}

// The next query, at position `computed`, sees positions from computed - window + 1 on.
std::int64_t KvBlocks::first_visible(std::int64_t computed, std::int64_t g) const {
  const std::int64_t window = windows_[static_cast<std::size_t>(g)];
  return window == 0 ? 0 : std::max<std::int64_t>(computed - window + 1, 0) / block_size_;
}

void KvBlocks::grow(Sequence& sequence, std::int64_t tokens) {
  const auto count = static_cast<std::size_t>(blocks_for(tokens));
  while (sequence.block_tables.front().size() < count) {
    for (auto& table : sequence.block_tables) {
      table.push_back(pool_.take());
      cache_.forget(table.back());
    }
  }
}

void KvBlocks::remember(Sequence& sequence, std::int64_t tokens) {
  if (!sequence.root) return;
  for (std::int64_t& i = sequence.blocks_cached; i < tokens / block_size_; ++i) {
    for (std::int64_t g = 0; g < groups(); ++g) {
      const std::int32_t block =
          sequence.block_tables[static_cast<std::size_t>(g)][static_cast<std::size_t>(i)];
      // Accepted guesses may fill a block and leave it behind a window in one step.
      if (block != PrefixCache::kNone) cache_.insert(block, sequence.hashes[static_cast<std::size_t>(i)], g);
    }
  }
}

void KvBlocks::free_behind_windows(Sequence& sequence) {
  for (std::int64_t g = 0; g < groups(); ++g) {
    auto& table = sequence.block_tables[static_cast<std::size_t>(g)];
    const std::int64_t visible = first_visible(sequence.computed, g);
    for (std::int64_t& i = sequence.freed_blocks[static_cast<std::size_t>(g)]; i < visible; ++i) {
      std::int32_t& block = table[static_cast<std::size_t>(i)];
      release_block(block);
      block = PrefixCache::kNone;
    }
  }
}

void KvBlocks::release(Sequence& sequence) {
  for (std::size_t i = sequence.block_tables.front().size(); i-- > 0;)
    for (const auto& table : sequence.block_tables)
      if (table[i] != PrefixCache::kNone) release_block(table[i]);
  for (auto& table : sequence.block_tables) table.clear();
  std::ranges::fill(sequence.freed_blocks, 0);
  sequence.blocks_cached = 0;
  sequence.computed = 0;
}

bool KvBlocks::forget_prefixes() {
  if (pool_.used_blocks() > 0) return false;
  cache_.clear();
  return true;
}

void extend_hashes(Sequence& sequence, std::int64_t block_size) {
  if (!sequence.root) return;
  const std::span<const std::int32_t> history = sequence.history();
  const auto block = static_cast<std::size_t>(block_size);
  for (std::size_t i = sequence.hashes.size(); (i + 1) * block <= history.size(); ++i)
    sequence.hashes.push_back(BlockHasher::next(i == 0 ? *sequence.root : sequence.hashes.back(),
                                                history.subspan(i * block, block)));
}

}  // namespace bise
