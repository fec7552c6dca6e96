#include "backend/solver.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace bise {
namespace {

std::size_t at(std::int64_t size, std::int64_t row, std::int64_t column) {
  return static_cast<std::size_t>(row * size + column);
}

// 2 X^T X of correlated rows with `dampening` of the mean diagonal added, as GPTQ makes it; below full rank
// when rows < size.
std::vector<float> hessian(std::int64_t size, std::int64_t rows, double dampening) {
  std::mt19937 engine(static_cast<std::uint32_t>(size));
  std::normal_distribution<double> normal;
  std::vector<double> sums(static_cast<std::size_t>(size * size));
  std::vector<double> x(static_cast<std::size_t>(size));
  for (std::int64_t r = 0; r < rows; ++r) {
    const double common = normal(engine);
    for (double& value : x) value = normal(engine) + common;
    x[0] *= 30;  // an outlier channel
    for (std::int64_t i = 0; i < size; ++i)
      for (std::int64_t j = 0; j < size; ++j)
        sums[at(size, i, j)] += 2 * x[static_cast<std::size_t>(i)] * x[static_cast<std::size_t>(j)];
  }
  double mean = 0;
  for (std::int64_t i = 0; i < size; ++i) mean += sums[at(size, i, i)] / static_cast<double>(size);
  for (std::int64_t i = 0; i < size; ++i) sums[at(size, i, i)] += dampening * mean;
  return {sums.begin(), sums.end()};
}

struct Case {
  std::int64_t size, rows;
};

// U^T U = A^-1, so U A U^T = I; U is upper triangular with a positive diagonal, which makes it unique.
TEST(InvertToUpperCholesky, GivesTheFactorOfTheInverse) {
  for (const auto& [size, rows] : {Case{1, 3}, Case{2, 8}, Case{3, 2}, Case{65, 300}, Case{200, 40}}) {
    SCOPED_TRACE(testing::Message() << "size " << size);
    const std::vector<float> matrix = hessian(size, rows, 0.01);
    std::vector<float> upper = matrix;
    ASSERT_TRUE(invert_to_upper_cholesky(upper, size));
    std::vector<double> product(matrix.size());  // U A
    for (std::int64_t i = 0; i < size; ++i) {
      EXPECT_GT(upper[at(size, i, i)], 0);
      for (std::int64_t j = 0; j < i; ++j) EXPECT_EQ(upper[at(size, i, j)], 0);
      for (std::int64_t k = i; k < size; ++k)
        for (std::int64_t j = 0; j < size; ++j)
          product[at(size, i, j)] +=
              static_cast<double>(upper[at(size, i, k)]) * static_cast<double>(matrix[at(size, k, j)]);
    }
    // Each entry of U is rounded to float32: an error of a unit times sqrt(condition number), at most about
    // 2 / dampening * size here.
    const double tolerance = 0x1p-24 * 16 * std::sqrt(200.0 * static_cast<double>(size));
    for (std::int64_t i = 0; i < size; ++i)
      for (std::int64_t j = 0; j < size; ++j) {
        double entry = 0;
        for (std::int64_t k = j; k < size; ++k)
          entry += product[at(size, i, k)] * static_cast<double>(upper[at(size, j, k)]);
        ASSERT_NEAR(entry, i == j ? 1 : 0, tolerance) << i << ", " << j;
      }
  }
}

TEST(InvertToUpperCholesky, KnowsA2x2ByHand) {
  // A = [[4, 2], [2, 2]]: A^-1 = [[0.5, -0.5], [-0.5, 1]] = U^T U.
  std::vector<float> matrix{4, 2, 2, 2};
  ASSERT_TRUE(invert_to_upper_cholesky(matrix, 2));
  const float root = std::sqrt(0.5f);
  EXPECT_FLOAT_EQ(matrix[0], root);
  EXPECT_FLOAT_EQ(matrix[1], -root);
  EXPECT_EQ(matrix[2], 0);
  EXPECT_FLOAT_EQ(matrix[3], root);
}

TEST(InvertToUpperCholesky, RefusesWhatIsNotPositiveDefinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              infinity = std::numeric_limits<float>::infinity();
  const std::vector<std::vector<float>> cases{{1, 2, 2, 1},       {0, 0, 0, 0},   {-1, 0, 0, 1},
                                              {1, 0, 0, 0},       {nan, 0, 0, 1}, {1, nan, nan, 1},
                                              {infinity, 0, 0, 1}};
  for (std::vector<float> matrix : cases) EXPECT_FALSE(invert_to_upper_cholesky(matrix, 2));
}

TEST(SubtractProduct, UsesStrides) {
  const std::vector<float> a{1, 2, 9, 3, 4, 9}, b{1, 0, 9, 9, 1, 2, 9, 9};
  std::vector<float> c{10, 10, 7, 10, 10, 7};
  subtract_product(2, 2, 2, a.data(), 3, b.data(), 4, c.data(), 3);
  EXPECT_EQ(c, (std::vector<float>{7, 6, 7, 3, 2, 7}));
}

}  // namespace
}  // namespace bise
