// Which blocks hold which tokens, so that a prompt that begins like an earlier sequence need not be computed
// again. Full blocks only, known by a hash chained over all tokens before them; a block stays known after
// its last holder, until the pool gives it to somebody else. Belongs to the engine's thread, BlockHasher to
// any; never allocates after the construction.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace bise {

// 128 bits: two different prefixes get the same hash never in practice, and cannot be made to, since the seed
// is secret.
struct BlockHash {
  std::uint64_t low = 0, high = 0;
  bool operator==(const BlockHash&) const = default;
};

// hash(block) = XXH3-128(hash of the block before, its tokens). The hash before the first block is made of
// the seed and the salt: sequences share blocks only with those of the same salt.
class BlockHasher {
 public:
  explicit BlockHasher(std::uint64_t seed) : seed_(seed) {}

  static constexpr std::int64_t kMaxBlockSize = 256;

  BlockHash root(std::string_view salt) const;
  // At most kMaxBlockSize tokens.
  static BlockHash next(const BlockHash& parent, std::span<const std::int32_t> token_ids);

 private:
  std::uint64_t seed_;
};

class PrefixCache {
 public:
  explicit PrefixCache(std::int64_t num_blocks);

  static constexpr std::int32_t kNone = -1;

  // A block of KV group `group` with these tokens (and those before), or kNone.
  std::int32_t find(const BlockHash& hash, std::int64_t group) const;
  bool contains(std::int32_t block) const { return entry(block).group != kNone; }
  // The block is not known yet. Several may have the same hash.
  void insert(std::int32_t block, const BlockHash& hash, std::int64_t group);
  // Nothing happens to a block that is not known.
  void forget(std::int32_t block);
  void clear();

 private:
  struct Entry {
    BlockHash hash;
    std::int32_t group = kNone, next = kNone;  // next block of the same bucket
  };
  const Entry& entry(std::int32_t block) const { return entries_[static_cast<std::size_t>(block)]; }
  std::size_t bucket(const BlockHash& hash, std::int64_t group) const {
    return (hash.low + static_cast<std::uint64_t>(group) * 0x9e3779b97f4a7c15u) & (buckets_.size() - 1);
  }

  std::vector<Entry> entries_;         // [num_blocks]
  std::vector<std::int32_t> buckets_;  // first block of each
};

// Blocks that a window of `window` tokens reaches back over from a block's begin.
inline std::int64_t window_blocks(std::int64_t window, std::int64_t block_size) {
  return (window - 1 + block_size - 1) / block_size;
}

// The longest prefix, in blocks and at most `limit`, that all KV groups can go on from: group g, which sees
// `windows[g]` tokens back (0: all), needs its last ceil((window - 1) / block_size) blocks, or all when it
// has no window. `cached(block index, group)` tells what is there. (spec/serving.md section 3.4)
template <class Cached>
std::int64_t longest_joint_hit(std::span<const std::int64_t> windows, std::int64_t block_size,
                               std::int64_t limit, const Cached& cached) {
  const auto groups = static_cast<std::int64_t>(windows.size());
  std::int64_t length = limit;
  for (std::int64_t g = 0; g < groups; ++g) {
    if (windows[static_cast<std::size_t>(g)] > 0) continue;
    std::int64_t hit = 0;
    while (hit < length && cached(hit, g)) ++hit;
    length = hit;
  }
  // A window needs a run of blocks that ends at the hit; where a group shortens it, the others look again.
  for (bool shortened = true; shortened && length > 0;) {
    shortened = false;
    for (std::int64_t g = 0; g < groups; ++g) {
      const std::int64_t window = windows[static_cast<std::size_t>(g)];
      if (window == 0) continue;
      std::int64_t end = length, begin = length;
      while (begin > 0 && end - begin < window_blocks(window, block_size))
        if (cached(--begin, g) == false) end = begin;
      shortened |= end < length;
      length = end;
    }
  }
  return length;
}

}  // namespace bise
