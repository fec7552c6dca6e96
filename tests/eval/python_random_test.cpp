// CPython's numbers and samples (spec/evaluation.md section 1.2, made by running CPython).
#include "eval/python_random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace bise {
namespace {

TEST(PythonRandom, WordsAndFractions) {
  PythonRandom words(1234);
  for (const std::uint32_t expected : {4150886329u, 3342196574u, 1892932127u, 501869158u})
    EXPECT_EQ(words.next32(), expected);
  PythonRandom fractions(1234);
  EXPECT_EQ(fractions.random(), 0.9664535356921388);
  EXPECT_EQ(fractions.random(), 0.4407325991753527);
}

TEST(PythonRandom, SamplesInDocumentOrder) {
  using Draw = std::vector<std::size_t>;
  struct Case {
    std::size_t pool, count;
    Draw first, second, last;  // of documents 0, 1 and 249
  };
  const Case cases[] = {
      {7473, 5, {6374, 3610, 957, 61, 742}, {7462, 6610, 4769, 286, 5501}, {5320, 4251, 460, 4945, 5175}},
      {39905,
       6,
       {28883, 7657, 490, 5940, 38156, 2288},
       {5500, 6450, 23241, 15519, 1142, 2019},
       {18199, 11278, 3274, 24971, 25767, 4062}},
      {2251, 5, {1805, 478, 30, 371, 143}, {343, 403, 1452, 969, 71}, {2046, 695, 774, 220, 1554}},
      {1119, 5, {902, 239, 15, 185, 71}, {171, 201, 726, 484, 35}, {726, 691, 83, 721, 563}},
  };
  for (const Case& test : cases) {
    PythonRandom random(1234);
    Draw drawn;
    for (int document = 0; document < 250; ++document) {
      drawn = random.sample(test.pool, test.count);
      if (document > 1) continue;
      EXPECT_EQ(drawn, document == 0 ? test.first : test.second) << test.pool;
    }
    EXPECT_EQ(drawn, test.last) << test.pool;
  }
}

TEST(PythonRandom, SamplesASmallPoolWithoutRepeats) {
  PythonRandom random(7);
  for (int round = 0; round < 100; ++round) {
    auto drawn = random.sample(6, 6);
    std::ranges::sort(drawn);
    EXPECT_EQ(drawn, (std::vector<std::size_t>{0, 1, 2, 3, 4, 5}));
  }
}

TEST(PythonRandom, Shuffles) {
  PythonRandom random(0);
  using Order = std::vector<std::size_t>;
  for (const Order& expected : {Order{2, 0, 1, 3}, Order{0, 1, 3, 2}, Order{0, 2, 1, 3}, Order{1, 0, 3, 2}})
    EXPECT_EQ(random.shuffled(4), expected);
}

}  // namespace
}  // namespace bise
