#include "engine/prefix_cache.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>
#include <bit>
#include <cstring>

#include "base/check.h"

namespace bise {
namespace {

BlockHash to_hash(XXH128_hash_t hash) {
  return {hash.low64, hash.high64};
}

}  // namespace

BlockHash BlockHasher::root(std::string_view salt) const {
  return to_hash(XXH3_128bits_withSeed(salt.data(), salt.size(), seed_));
}

BlockHash BlockHasher::next(const BlockHash& parent, std::span<const std::int32_t> token_ids) {
  std::array<std::byte, sizeof(BlockHash) + kMaxBlockSize * sizeof(std::int32_t)> bytes;
  check(token_ids.size() <= kMaxBlockSize, "a block is hashed at once");
  std::memcpy(bytes.data(), &parent, sizeof parent);
  std::memcpy(bytes.data() + sizeof parent, token_ids.data(), token_ids.size_bytes());
  return to_hash(XXH3_128bits(bytes.data(), sizeof parent + token_ids.size_bytes()));
}

PrefixCache::PrefixCache(std::int64_t num_blocks)
    : entries_(static_cast<std::size_t>(num_blocks)),
      buckets_(std::bit_ceil(static_cast<std::size_t>(2 * num_blocks)), kNone) {}

std::int32_t PrefixCache::find(const BlockHash& hash, std::int64_t group) const {
  std::int32_t block = buckets_[bucket(hash, group)];
  while (block != kNone && !(entry(block).hash == hash && entry(block).group == group))
    block = entry(block).next;
  return block;
}

void PrefixCache::insert(std::int32_t block, const BlockHash& hash, std::int64_t group) {
  check(!contains(block), "a block is cached once");
  std::int32_t& first = buckets_[bucket(hash, group)];
  entries_[static_cast<std::size_t>(block)] = {hash, static_cast<std::int32_t>(group), first};
  first = block;
}

void PrefixCache::forget(std::int32_t block) {
  Entry& gone = entries_[static_cast<std::size_t>(block)];
  if (gone.group == kNone) return;
  std::int32_t* link = &buckets_[bucket(gone.hash, gone.group)];
  while (*link != block) link = &entries_[static_cast<std::size_t>(*link)].next;
  *link = gone.next;
  gone = {};
}

void PrefixCache::clear() {
  std::ranges::fill(entries_, Entry{});
  std::ranges::fill(buckets_, kNone);
}

}  // namespace bise
