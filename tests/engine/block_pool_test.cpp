#include "engine/block_pool.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/check.h"

namespace bise {
namespace {

std::vector<std::int32_t> take_all(BlockPool& pool) {
  std::vector<std::int32_t> taken;
  while (pool.free_blocks() > 0) taken.push_back(pool.take());
  return taken;
}

TEST(BlockPool, GivesEachBlockButTheNullBlockOnce) {
  BlockPool pool(5);
  EXPECT_EQ(pool.num_blocks(), 5);
  EXPECT_EQ(pool.free_blocks(), 4);
  EXPECT_EQ(take_all(pool), (std::vector<std::int32_t>{1, 2, 3, 4}));
  EXPECT_EQ(pool.used_blocks(), 4);
  EXPECT_THROW(pool.take(), InternalError);
}

// Blocks 1 to 4 are in use; what is then released and shared decides in which order they are given out.
TEST(BlockPool, FreeBlocksAreTakenInTheOrderThatTheyBecameFree) {
  struct Operation {
    char kind;  // 'k': release and keep, 'd': release and drop, 's': share
    std::int32_t block;
  };
  struct Case {
    const char* name;
    std::vector<Operation> operations;
    std::vector<std::int32_t> taken;
  };
  const std::vector<Case> cases = {
      {"kept ones queue up", {{'k', 3}, {'k', 1}, {'k', 2}}, {3, 1, 2}},
      {"dropped ones go first", {{'k', 3}, {'d', 1}, {'k', 2}, {'d', 4}}, {4, 1, 3, 2}},
      {"a shared one leaves the queue", {{'k', 3}, {'k', 1}, {'k', 2}, {'s', 1}}, {3, 2}},
      {"and comes back at its end", {{'k', 3}, {'k', 1}, {'k', 2}, {'s', 3}, {'k', 3}}, {1, 2, 3}},
      {"the last holder counts", {{'s', 2}, {'k', 2}, {'k', 4}, {'k', 2}}, {4, 2}},
      {"the only free one", {{'k', 2}, {'s', 2}, {'k', 2}}, {2}},
  };
  for (const Case& each : cases) {
    BlockPool pool(5);
    take_all(pool);
    for (const Operation& operation : each.operations) {
      if (operation.kind == 's')
        pool.share(operation.block);
      else
        pool.release(operation.block, operation.kind == 'k');
    }
    EXPECT_EQ(pool.free_blocks(), static_cast<std::int64_t>(each.taken.size())) << each.name;
    EXPECT_EQ(take_all(pool), each.taken) << each.name;
  }
}

TEST(BlockPool, RefusesWhatWouldLoseABlock) {
  BlockPool pool(3);
  const std::int32_t block = pool.take();
  pool.share(block);
  EXPECT_EQ(pool.references(block), 2);
  pool.release(block, true);
  pool.release(block, true);
  EXPECT_THROW(pool.release(block, true), InternalError);
  EXPECT_THROW(pool.release(BlockPool::kNullBlock, true), InternalError);
  EXPECT_THROW(pool.share(BlockPool::kNullBlock), InternalError);
  EXPECT_THROW(pool.share(3), InternalError);
  EXPECT_THROW(BlockPool(1), InternalError);
}

}  // namespace
}  // namespace bise
