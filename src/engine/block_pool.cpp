#include "engine/block_pool.h"

#include "base/check.h"

namespace bise {

BlockPool::BlockPool(std::int64_t num_blocks, std::int64_t block_size)
    : block_size_(block_size), references_(static_cast<std::size_t>(num_blocks), 0) {
  check(num_blocks > 0 && block_size > 0, "a pool has blocks");
  free_.reserve(static_cast<std::size_t>(num_blocks));
  for (std::int64_t block = num_blocks - 1; block >= 0; --block)
    free_.push_back(static_cast<std::int32_t>(block));
}

bool BlockPool::allocate(std::int64_t count, std::vector<std::int32_t>& blocks) {
  if (count > free_blocks()) return false;
  for (; count > 0; --count) {
    const std::int32_t block = free_.back();
    free_.pop_back();
    references_[static_cast<std::size_t>(block)] = 1;
    blocks.push_back(block);
  }
  return true;
}

void BlockPool::share(std::int32_t block) {
  check(references_.at(static_cast<std::size_t>(block)) > 0, "a shared block is in use");
  ++references_[static_cast<std::size_t>(block)];
}

void BlockPool::release(std::vector<std::int32_t>& blocks) {
  for (; !blocks.empty(); blocks.pop_back()) {
    std::int32_t& references = references_.at(static_cast<std::size_t>(blocks.back()));
    check(references > 0, "a released block is in use");
    if (--references == 0) free_.push_back(blocks.back());
  }
}

}  // namespace bise
