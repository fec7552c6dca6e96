// The blocks of one KV cache and the sequences that hold them: growing and freeing block tables, sharing
// prefixes, freeing what falls behind sliding windows. One pool for all KV groups. Engine thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/block_pool.h"
#include "engine/prefix_cache.h"
#include "engine/sequence.h"
#include "model/kv_layout.h"

namespace bise {

class KvBlocks {
 public:
  // At most `max_step_tokens` tokens of a sequence are computed in a step.
  KvBlocks(const KvLayout& layout, std::int64_t num_blocks, std::int64_t block_size,
           std::int64_t max_step_tokens);

  const BlockPool& pool() const { return pool_; }
  const PrefixCache& cache() const { return cache_; }
  std::int64_t block_size() const { return block_size_; }
  std::int64_t groups() const { return static_cast<std::int64_t>(windows_.size()); }
  std::span<const std::int64_t> windows() const { return windows_; }  // [groups], 0: none
  std::int64_t blocks_for(std::int64_t tokens) const { return (tokens + block_size_ - 1) / block_size_; }

  // Blocks to take so that the sequence's tables hold `tokens` tokens.
  std::int64_t blocks_to_grow(const Sequence& sequence, std::int64_t tokens) const;
  // The most blocks that a sequence of `tokens` tokens has at one time, over all groups.
  std::int64_t most_blocks(std::int64_t tokens) const;
  // The same for group `g`.
  std::int64_t most_blocks(std::int64_t tokens, std::int64_t g) const;
  // The longest sequence that the pool can hold when it is alone, at most `limit`.
  std::int64_t longest_sequence(std::int64_t limit) const;
  // First block that group `g` still sees when `computed` tokens are computed.
  std::int64_t first_visible(std::int64_t computed, std::int64_t g) const;

  // One more holder of a block in use or known to the cache.
  void share(std::int32_t block) { pool_.share(block); }
  // Takes blocks; there must be enough.
  void grow(Sequence& sequence, std::int64_t tokens);
  // Tells the cache the full blocks among the first `tokens` tokens.
  void remember(Sequence& sequence, std::int64_t tokens);
  // Gives back what no group sees any more.
  void free_behind_windows(Sequence& sequence);
  // Gives back all blocks, the last first: so that the begin of a prompt is forgotten last.
  void release(Sequence& sequence);
  // False, and nothing, while blocks are in use.
  bool forget_prefixes();

 private:
  void release_block(std::int32_t block) { pool_.release(block, cache_.contains(block)); }

  std::int64_t block_size_, max_step_tokens_;
  std::vector<std::int64_t> windows_;
  BlockPool pool_;
  PrefixCache cache_;
};

// Adds the hashes of blocks that the known tokens now fill. Does nothing without a root.
void extend_hashes(Sequence& sequence, std::int64_t block_size);

}  // namespace bise
