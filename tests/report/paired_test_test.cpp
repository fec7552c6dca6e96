// Tests of significance against hand-made counts and scipy 1.17's numbers.
#include "report/paired_test.h"

#include <gtest/gtest.h>

#include <cmath>

namespace bise {
namespace {

TEST(PairedTests, Binomial) {
  // scipy.stats.binomtest(k, n).pvalue
  const struct {
    std::int64_t k, n;
    double p;
  } cases[] = {{0, 0, 1},
               {0, 1, 1},
               {2, 8, 0.2890625},  // 2 * (1 + 8 + 28) / 256
               {5, 5, 0.0625},     // 2 / 32
               {3, 17, 0.012725830078125},
               {40, 100, 0.05688793364098089},
               {480, 1000, 0.2174482932041415},
               {4, 8, 1}};
  for (const auto& test : cases) EXPECT_NEAR(binomial_p(test.k, test.n), test.p, 1e-12) << test.k;
}

TEST(PairedTests, StudentsT) {
  // 2 * scipy.stats.t.sf(abs(t), v)
  const struct {
    double t, v, p;
  } cases[] = {{0.5, 3, 0.651447964848151},      {2, 9, 0.07655282377070101},
               {-3.1, 99, 0.002520195824463759}, {0, 5, 1},
               {12, 2, 0.00687293367715846},     {1.96, 100000, 0.04999856319430168},
               {40, 30, 1.3726045194406417e-27}};
  for (const auto& test : cases)
    EXPECT_NEAR(student_p(test.t, test.v) / test.p, 1, 1e-9) << test.t << " " << test.v;
  EXPECT_EQ(student_p(INFINITY, 5), 0);
}

TEST(PairedTests, RightAndWrongAreCounted) {
  //                     original       other: two gained, one lost
  const PairedTest test = paired_test({1, 0, 0, 1, 0, 1, 1, 0}, {1, 1, 0, 0, 1, 1, 1, 0});
  EXPECT_EQ(test.method, "McNemar, exact");
  EXPECT_EQ(test.gained, 2);
  EXPECT_EQ(test.lost, 1);
  EXPECT_EQ(test.p, 1);  // 2 of 3: 2 * (1 + 3) / 8
  EXPECT_EQ(test.samples, 8);
  EXPECT_DOUBLE_EQ(test.difference, 0.125);
  EXPECT_NEAR(test.standard_error, 0.2265817417937414, 1e-15);
  EXPECT_EQ(paired_test({1, 0}, {1, 0}).p, 1);
  EXPECT_NEAR(paired_test({1, 1, 1, 1, 1, 1, 0}, {0, 0, 0, 0, 0, 0, 0}).p, 2.0 / 64, 1e-15);
}

TEST(PairedTests, OtherNumbersTakeTheTTest) {
  // scipy.stats.ttest_rel
  const PairedTest test = paired_test({0.1, 0.5, 0.9, 0.3, 0.7}, {0.2, 0.4, 0.95, 0.5, 0.65});
  EXPECT_EQ(test.method, "paired t");
  EXPECT_NEAR(test.p, 0.49535430889103194, 1e-12);
  EXPECT_NEAR(test.difference, 0.04, 1e-15);
  EXPECT_NEAR(test.standard_error, 0.05338539126015655, 1e-15);
  EXPECT_EQ(paired_test({0.5, 0.5}, {0.5, 0.5}).p, 1);
  EXPECT_EQ(paired_test({0.5, 0.5}, {0.6, 0.6}).p, 0) << "always the same difference";
  EXPECT_EQ(paired_test({0.5}, {0.6}).p, 1) << "one sample says nothing";
}

TEST(PairedTests, MeansOverTasks) {
  const PairedTest mean = mean_test({paired_test({1, 0, 0, 1, 0, 1, 1, 0}, {1, 1, 0, 0, 1, 1, 1, 0}),
                                     paired_test({0.1, 0.5, 0.9, 0.3, 0.7}, {0.2, 0.4, 0.95, 0.5, 0.65})});
  EXPECT_NEAR(mean.difference, 0.0825, 1e-15);
  EXPECT_NEAR(mean.standard_error, 0.1163929612501178, 1e-15);
  EXPECT_NEAR(mean.p, 0.4784450300902467, 1e-12);  // erfc(|z| / sqrt 2)
  EXPECT_EQ(mean.samples, 13);
}

}  // namespace
}  // namespace bise
