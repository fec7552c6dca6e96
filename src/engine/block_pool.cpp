#include "engine/block_pool.h"

#include <limits>

#include "base/check.h"

namespace bise {

BlockPool::BlockPool(std::int64_t num_blocks) {
  check(num_blocks > 1 && num_blocks < std::numeric_limits<std::int32_t>::max(), "a pool has blocks");
  blocks_.resize(static_cast<std::size_t>(num_blocks) + 1);
  at(sentinel()).previous = at(sentinel()).next = sentinel();
  at(kNullBlock).references = 1;
  for (std::int32_t block = 1; block < sentinel(); ++block) link(block, sentinel());
}

std::int32_t BlockPool::take() {
  check(free_ > 0, "a block is free");
  const std::int32_t block = at(sentinel()).next;
  unlink(block);
  at(block).references = 1;
  return block;
}

void BlockPool::share(std::int32_t block) {
  check(block > kNullBlock && block < sentinel(), "a shared block exists");
  if (at(block).references == 0) unlink(block);
  ++at(block).references;
}

void BlockPool::release(std::int32_t block, bool keep) {
  check(block > kNullBlock && block < sentinel() && at(block).references > 0, "a released block is in use");
  if (--at(block).references == 0) link(block, keep ? sentinel() : at(sentinel()).next);
}

void BlockPool::link(std::int32_t block, std::int32_t before) {
  const std::int32_t previous = at(before).previous;
  at(block).previous = previous;
  at(block).next = before;
  at(previous).next = block;
  at(before).previous = block;
  ++free_;
}

void BlockPool::unlink(std::int32_t block) {
  at(at(block).previous).next = at(block).next;
  at(at(block).next).previous = at(block).previous;
  --free_;
}

}  // namespace bise
