#include "engine/prefix_cache.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/check.h"

namespace bise {
namespace {

TEST(PrefixCache, FindsABlockByItsTokensAndAllBeforeThem) {
  const BlockHasher hasher(1);
  const std::vector<std::int32_t> a = {1, 2, 3, 4}, b = {5, 6, 7, 8};
  const BlockHash root = hasher.root(""), first = BlockHasher::next(root, a);
  PrefixCache cache(8);
  cache.insert(3, first, 0);
  cache.insert(4, BlockHasher::next(first, b), 0);
  cache.insert(5, first, 1);
  EXPECT_EQ(cache.find(first, 0), 3);
  EXPECT_EQ(cache.find(first, 1), 5);
  EXPECT_EQ(cache.find(first, 2), PrefixCache::kNone);
  EXPECT_EQ(cache.find(BlockHasher::next(first, b), 0), 4);
  EXPECT_EQ(cache.find(BlockHasher::next(root, b), 0), PrefixCache::kNone) << "the same tokens elsewhere";
  EXPECT_EQ(cache.find(BlockHasher::next(hasher.root("salt"), a), 0), PrefixCache::kNone);
  EXPECT_EQ(cache.find(BlockHasher::next(BlockHasher(2).root(""), a), 0), PrefixCache::kNone);

  EXPECT_THROW(cache.insert(3, root, 0), InternalError);
  cache.insert(6, first, 0);  // the same tokens, computed twice
  cache.forget(6);
  EXPECT_EQ(cache.find(first, 0), 3);
  cache.forget(3);
  cache.forget(3);
  EXPECT_FALSE(cache.contains(3));
  EXPECT_EQ(cache.find(first, 0), PrefixCache::kNone);
  cache.clear();
  EXPECT_EQ(cache.find(first, 1), PrefixCache::kNone);
  EXPECT_FALSE(cache.contains(5));
}

// Blocks of 4 tokens. A string for each group: which of its blocks are cached.
TEST(PrefixCache, TheLongestHitThatAllGroupsCanGoOnFrom) {
  struct Case {
    std::vector<std::int64_t> windows;
    std::vector<std::string> cached;
    std::int64_t limit, hit;
  };
  const std::vector<Case> cases = {
      {{0}, {"......"}, 6, 0},
      {{0}, {"xxx..."}, 6, 3},
      {{0}, {"xxxxxx"}, 4, 4},
      {{0}, {"xxxxxx"}, 0, 0},
      {{0}, {".xxxxx"}, 6, 0},
      {{0, 0}, {"xxxxx.", "xx.xxx"}, 6, 2},
      // Window 5: the next token sees 4 more, one block.
      {{5}, {".....x"}, 6, 6},
      {{5}, {"x..x.."}, 6, 4},
      {{5}, {"......"}, 6, 0},
      // Window 6 sees 5 more, two blocks; at the begin fewer are there.
      {{6}, {"x.xx.x"}, 6, 4},
      {{6}, {"x.x.x."}, 6, 1},
      {{6}, {"xx.x.x"}, 6, 2},
      {{6}, {".x.x.x"}, 6, 0},
      // A window of one token sees itself only.
      {{1}, {"......"}, 6, 6},
      {{0, 6}, {"xxxxx.", "...xx."}, 6, 5},
      {{0, 6}, {"xxxx..", "...xxx"}, 6, 0},
      {{0, 6}, {"xxxx..", "xx..xx"}, 6, 2},
      // The second window shortens what the first one found, and the other way round.
      {{5, 9}, {"x.x.x.", "xx.xx."}, 6, 5},
      {{5, 9}, {"x....x", "xxx.x."}, 6, 1},
      {{5, 9, 0}, {"xx.x.x", "xx.xxx", "xxxxx."}, 6, 2},
  };
  for (const Case& each : cases) {
    const auto cached = [&](std::int64_t block, std::int64_t group) {
      return each.cached[static_cast<std::size_t>(group)][static_cast<std::size_t>(block)] == 'x';
    };
    std::string name;
    for (const std::string& row : each.cached) name += row + " ";
    EXPECT_EQ(longest_joint_hit(each.windows, 4, each.limit, cached), each.hit) << name;
  }
}

}  // namespace
}  // namespace bise
