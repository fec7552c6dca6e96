// Sums over a row of logits: what log-probabilities and divergences are made of. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bise {

struct TokenLogprob {
  std::int32_t token = 0;
  double logprob = 0;
  bool operator==(const TokenLogprob&) const = default;
};

// The largest of at least one value. Throws NanLogit when there is a NaN.
float largest_value(std::span<const float> values);

// ln(sum over i of exp(logits[i])). Exponentials in float32 (relative error 2e-7), sums in double.
double log_sum_exp(std::span<const float> logits);
double log_sum_exp(std::span<const float> logits, float largest);  // where the largest is known

// The `count` most likely tokens, best first (of equals the smaller id), with their log-probabilities.
// `normalizer` is log_sum_exp(logits).
std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, double normalizer, std::int64_t count);

// KL(p || q) = sum over i of p_i (ln p_i - ln q_i) of the two softmax distributions, in nats, from their
// logits and normalizers.
double kl_divergence(std::span<const float> p_logits, double p_normalizer, std::span<const float> q_logits,
                     double q_normalizer);

}  // namespace bise
