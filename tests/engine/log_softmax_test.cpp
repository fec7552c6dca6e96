#include "engine/log_softmax.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace bise {
namespace {

std::vector<float> random_logits(std::size_t count, float deviation, std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(engine);
  return logits;
}

double exact_log_sum_exp(const std::vector<float>& logits) {
  const double largest = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - largest);
  return largest + std::log(sum);
}

// Lengths around the vector and block sizes, spreads from flat to one-hot.
TEST(LogSoftmax, LogSumExpEqualsDouble) {
  for (const std::size_t count : {1u, 3u, 4u, 15u, 16u, 17u, 1023u, 1024u, 1041u, 49152u})
    for (const float deviation : {0.0f, 0.1f, 3.0f, 40.0f, 1000.0f}) {
      const std::vector<float> logits = random_logits(count, deviation, static_cast<std::uint32_t>(count));
      EXPECT_NEAR(log_sum_exp(logits), exact_log_sum_exp(logits), 5e-7) << count << " " << deviation;
    }
}

TEST(LogSoftmax, KlDivergenceEqualsDouble) {
  for (const std::size_t count : {5u, 320u, 49152u})
    for (const float deviation : {0.001f, 0.3f, 3.0f}) {
      const std::vector<float> p = random_logits(count, 3, 1);
      std::vector<float> q = random_logits(count, deviation, 2);
      for (std::size_t i = 0; i < count; ++i) q[i] += p[i];
      const double p_sum = exact_log_sum_exp(p), q_sum = exact_log_sum_exp(q);
      double exact = 0;
      for (std::size_t i = 0; i < count; ++i) {
        const double log_p = static_cast<double>(p[i]) - p_sum, log_q = static_cast<double>(q[i]) - q_sum;
        exact += std::exp(log_p) * (log_p - log_q);
      }
      EXPECT_NEAR(kl_divergence(p, log_sum_exp(p), q, log_sum_exp(q)), exact, 1e-6 + 1e-6 * exact)
          << count << " " << deviation;
    }
  const std::vector<float> same = random_logits(1000, 3, 3);
  EXPECT_NEAR(kl_divergence(same, log_sum_exp(same), same, log_sum_exp(same)), 0, 1e-12);
}

TEST(LogSoftmax, TopLogprobsAreSortedAndBreakTiesById) {
  const std::vector<float> logits = {1, 5, 3, 5, 0, 3, 4};
  const auto top = top_logprobs(logits, 0, 5);
  const std::vector<TokenLogprob> expected = {{1, 5}, {3, 5}, {6, 4}, {2, 3}, {5, 3}};
  EXPECT_EQ(top, expected);
  EXPECT_EQ(top_logprobs(logits, 0, 100).size(), 7u);
  EXPECT_TRUE(top_logprobs(logits, 0, 0).empty());
}

}  // namespace
}  // namespace bise
