#include "engine/block_pool.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "base/check.h"

namespace bise {
namespace {

TEST(BlockPool, GivesEachBlockOnceAndTakesItBack) {
  BlockPool pool(5, 16);
  EXPECT_EQ(pool.blocks_for(0), 0);
  EXPECT_EQ(pool.blocks_for(16), 1);
  EXPECT_EQ(pool.blocks_for(17), 2);
  std::vector<std::int32_t> first, second;
  ASSERT_TRUE(pool.allocate(3, first));
  EXPECT_FALSE(pool.allocate(3, second));
  EXPECT_TRUE(second.empty());
  ASSERT_TRUE(pool.allocate(2, second));
  std::set<std::int32_t> all(first.begin(), first.end());
  all.insert(second.begin(), second.end());
  EXPECT_EQ(all.size(), 5u);
  EXPECT_EQ(pool.free_blocks(), 0);
  pool.release(first);
  EXPECT_TRUE(first.empty());
  EXPECT_EQ(pool.free_blocks(), 3);
}

TEST(BlockPool, SharedBlocksLiveUntilTheLastHolder) {
  BlockPool pool(2, 16);
  std::vector<std::int32_t> blocks;
  ASSERT_TRUE(pool.allocate(1, blocks));
  std::vector<std::int32_t> other = blocks;
  pool.share(other[0]);
  pool.release(blocks);
  EXPECT_EQ(pool.free_blocks(), 1);
  pool.release(other);
  EXPECT_EQ(pool.free_blocks(), 2);
  std::vector<std::int32_t> freed = {0};
  EXPECT_THROW(pool.release(freed), InternalError);
}

}  // namespace
}  // namespace bise
