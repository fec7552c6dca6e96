#include "engine/log_softmax.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "engine/largest_logits.h"
#include "engine/logit_kernels.h"

namespace bise {

float largest_value(std::span<const float> values) {
  LargestLogits largest;
  largest.scan(values);
  return largest.largest();
}

double log_sum_exp(std::span<const float> logits) {
  return log_sum_exp(logits, largest_value(logits));
}

double log_sum_exp(std::span<const float> logits, float largest) {
  return static_cast<double>(largest) +
         std::log(logit_kernels().sum_exp(logits.data(), logits.size(), largest, 1));
}

std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, double normalizer, std::int64_t count) {
  LargestLogits largest;
  largest.scan(logits);
  std::vector<RankedLogit> best;
  largest.select(
      static_cast<std::size_t>(std::clamp<std::int64_t>(count, 0, static_cast<std::int64_t>(logits.size()))),
      false, best);
  std::sort(best.begin(), best.end());
  std::vector<TokenLogprob> result;
  for (const RankedLogit& each : best)
    result.push_back({each.token, static_cast<double>(each.logit) - normalizer});
  return result;
}

double kl_divergence(std::span<const float> p_logits, double p_normalizer, std::span<const float> q_logits,
                     double q_normalizer) {
  check(p_logits.size() == q_logits.size(), "both rows have one vocabulary");
  const float p_largest = largest_value(p_logits);
  // sum p (a - b) with p = exp(a - largest) / sum: the constants are taken out of the sum.
  const double weighted =
      logit_kernels().weighted_difference(p_logits.data(), q_logits.data(), p_logits.size(), p_largest);
  const double scale = std::exp(static_cast<double>(p_largest) - p_normalizer);
  return weighted * scale - p_normalizer + q_normalizer;
}

}  // namespace bise
