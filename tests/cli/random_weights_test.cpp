// Random weights are what a quantizer would write of normally distributed ones.
#include "cli/random_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"

namespace bise {
namespace {

TEST(RandomWeights, HaveTheSpreadOfNormalValuesInEveryScheme) {
  constexpr std::int64_t kRows = 64, kColumns = 1024;
  std::vector<float> row(kColumns);
  for (const char* name : {"", "W4A16", "W4A16_ASYM", "W8A16", "W8A8", "FP8_DYNAMIC", "NF4"}) {
    const Scheme scheme = *name ? parse_scheme(name) : Scheme{};
    const StoredLinear linear = random_linear(scheme, kRows, kColumns, 7);
    double sum = 0, squares = 0;
    float largest = 0;
    for (std::int64_t i = 0; i < kRows; ++i) {
      dequantize_row(linear, i, row);
      for (float value : row) {
        sum += value;
        squares += double(value) * value;
        largest = std::max(largest, std::abs(value) * std::sqrt(float(kColumns)));
      }
    }
    constexpr double kCount = kRows * kColumns;
    EXPECT_NEAR(std::sqrt(squares / kCount * kColumns), 1, 0.06) << name;
    EXPECT_NEAR(sum / std::sqrt(squares), 0, 0.06 * std::sqrt(kCount)) << name;
    EXPECT_GT(largest, 2.5) << name;  // of uniform values: 1.73
    EXPECT_LT(largest, 6) << name;
  }
}

TEST(RandomWeights, RejectsColumnsThatDoNotDivideIntoGroups) {
  EXPECT_THROW(random_linear(parse_scheme("W4A16"), 8, 96, 1), Error);
}

}  // namespace
}  // namespace bise
