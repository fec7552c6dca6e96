// Random weights are what a quantizer would write of normally distributed ones.
#include "cli/random_weights.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
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

// The smallest e4m3 number is 2^-9: of values up to 0.001 those beyond 2^-10 become it, 2.3 % of them.
TEST(RandomWeights, DummiesAreWhatVllmFillsIn) {
  constexpr std::int64_t kRows = 64, kColumns = 1024;
  for (const auto& [name, zeros] :
       std::map<std::string, double>{{"", 0}, {"FP8_DYNAMIC", 1 - 0.0234}, {"W8A8", 1}, {"W4A16", 0}}) {
    const Scheme scheme = name.empty() ? Scheme{} : parse_scheme(name);
    const StoredLinear linear = random_linear(scheme, kRows, kColumns, 7, RandomValues::kDummy);
    std::vector<float> row(kColumns);
    double zero = 0;
    for (std::int64_t i = 0; i < kRows; ++i) {
      dequantize_row(linear, i, row);
      zero += static_cast<double>(std::ranges::count(row, 0.f));
    }
    EXPECT_NEAR(zero / (kRows * kColumns), zeros, 0.005) << name;
  }
  EXPECT_THROW(parse_random_values("uniform"), Error);
}

TEST(RandomWeights, RejectsColumnsThatDoNotDivideIntoGroups) {
  EXPECT_THROW(random_linear(parse_scheme("W4A16"), 8, 96, 1), Error);
}

}  // namespace
}  // namespace bise
