#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/check.h"

namespace bise {
namespace {

// Draws once at each of `count` positions.
std::map<std::int32_t, int> draw(const SamplingParams& params, const std::vector<float>& logits, int count) {
  const auto vocabulary = static_cast<std::int64_t>(logits.size());
  Sampler::Scratch scratch(vocabulary);
  const Sampler sampler(params, 7, {}, vocabulary);
  std::map<std::int32_t, int> counts;
  for (int position = 0; position < count; ++position) ++counts[sampler.sample(logits, position, 0, scratch)];
  return counts;
}

std::vector<float> logs(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

struct Case {
  const char* name;
  double temperature;
  std::int64_t top_k;
  double top_p, min_p;
  std::vector<double> probabilities, expected;  // expected up to a factor
};

const std::vector<double> kFive = {0.1, 0.4, 0.05, 0.3, 0.15};
const std::vector<Case> kCases = {
    {"plain", 1, 0, 1, 0, kFive, kFive},
    {"hot", 2, 0, 1, 0, {0.64, 0.04, 0.32}, {0.8, 0.2, std::sqrt(0.32)}},
    {"cold", 0.5, 0, 1, 0, {0.75, 0.25}, {9, 1}},
    {"top_k 2", 1, 2, 1, 0, kFive, {0, 4, 0, 3, 0}},
    {"top_k beyond the vocabulary", 1, 9, 1, 0, kFive, kFive},
    {"top_p below the sum of two", 1, 0, 0.69, 0, kFive, {0, 4, 0, 3, 0}},
    {"top_p above it takes one more", 1, 0, 0.71, 0, kFive, {0, 0.4, 0, 0.3, 0.15}},
    {"top_p tiny keeps the best", 1, 0, 1e-6, 0, kFive, {0, 1, 0, 0, 0}},
    {"min_p", 1, 0, 1, 0.3, kFive, {0, 0.4, 0, 0.3, 0.15}},
    {"top_p after top_k", 1, 3, 0.8, 0, kFive, {0, 4, 0, 3, 0}},
};

TEST(Sampler, DrawsWithTheStatedProbabilities) {
  constexpr int kDraws = 40000;
  for (const Case& each : kCases) {
    double total = 0;
    for (const double weight : each.expected) total += weight;
    SamplingParams params;
    params.temperature = each.temperature;
    params.top_k = each.top_k;
    params.top_p = each.top_p;
    params.min_p = each.min_p;
    auto counts = draw(params, logs(each.probabilities), kDraws);
    for (std::size_t token = 0; token < each.expected.size(); ++token) {
      const double p = each.expected[token] / total;
      // Five standard deviations of a binomial count.
      EXPECT_NEAR(counts[static_cast<std::int32_t>(token)], p * kDraws,
                  5 * std::sqrt(p * (1 - p) * kDraws) + 1e-9)
          << each.name << " token " << token;
    }
  }
}

TEST(Sampler, GreedyTakesTheFirstBest) {
  EXPECT_EQ(draw({.temperature = 0}, {1, 3, 2, 3}, 10), (std::map<std::int32_t, int>{{1, 10}}));
  std::vector<float> many(1000, 0.5f);
  many[777] = 0.75f;
  EXPECT_EQ(argmax(many), 777);
  EXPECT_THROW(argmax(std::vector<float>(5, std::nanf(""))), InternalError);
}

TEST(Sampler, DependsOnSeedAndPositionOnly) {
  const std::vector<float> logits(1000, 0.0f);
  Sampler::Scratch scratch(1000), other(1000);
  const Sampler a({.seed = 11}, 1, {}, 1000), b({.seed = 11}, 2, {}, 1000), c({.seed = 12}, 1, {}, 1000);
  std::set<std::int32_t> seen;
  int equal = 0;
  for (int position = 0; position < 100; ++position) {
    const std::int32_t token = a.sample(logits, position, 0, scratch);
    EXPECT_EQ(b.sample(logits, position, 5, other), token);
    equal += c.sample(logits, position, 0, scratch) == token ? 1 : 0;
    seen.insert(token);
  }
  EXPECT_GT(seen.size(), 80u);
  EXPECT_LT(equal, 5);
}

TEST(Sampler, PenaltiesInVllmsOrder) {
  // Repetition over prompt and output, divided when positive, multiplied when negative; then frequency and
  // presence over the output. Greedy shows which token is best.
  struct PenaltyCase {
    const char* name;
    double repetition, frequency, presence;
    std::vector<std::int32_t> prompt, output;
    std::vector<float> logits;
    std::int32_t expected;
  };
  const std::vector<PenaltyCase> cases = {
      {"repetition in prompt", 2, 0, 0, {0}, {}, {4, 3}, 1},
      {"repetition once only", 2, 0, 0, {0, 0}, {0}, {7, 3}, 0},
      {"repetition of a negative", 2, 0, 0, {0}, {}, {-1, -1.5f}, 1},
      {"frequency counts", 1, 1, 0, {}, {0, 0, 0}, {5, 2.5f}, 1},
      {"presence counts once", 1, 0, 1, {}, {0, 0, 0}, {5, 3.5f}, 0},
      {"presence not in prompt", 1, 0, 2, {0}, {}, {5, 4}, 0},
      {"frequency after repetition", 2, 1, 0, {}, {0}, {4, 1.5f}, 1},
  };
  for (const PenaltyCase& each : cases) {
    SamplingParams params;
    params.temperature = 0;
    params.repetition_penalty = each.repetition;
    params.frequency_penalty = each.frequency;
    params.presence_penalty = each.presence;
    Sampler sampler(params, 0, each.prompt, 2);
    for (const std::int32_t token : each.output) sampler.accept(token);
    Sampler::Scratch scratch(2);
    EXPECT_EQ(sampler.sample(each.logits, 0, 0, scratch), each.expected) << each.name;
  }
}

TEST(Sampler, StopTokensWaitForMinTokens) {
  const Sampler sampler({.temperature = 0, .min_tokens = 2, .stop_token_ids = {1}}, 0, {}, 3);
  Sampler::Scratch scratch(3);
  const std::vector<float> logits = {1, 9, 2};
  EXPECT_EQ(sampler.sample(logits, 0, 1, scratch), 2);
  EXPECT_EQ(sampler.sample(logits, 0, 2, scratch), 1);
}

TEST(Sampler, ParametersHaveRanges) {
  const auto valid_with = [](const auto& change) {
    SamplingParams params;
    change(params);
    return valid(params);
  };
  EXPECT_TRUE(valid({}));
  EXPECT_FALSE(valid_with([](SamplingParams& p) { p.temperature = -1; }));
  EXPECT_FALSE(valid_with([](SamplingParams& p) { p.temperature = std::nan(""); }));
  EXPECT_FALSE(valid_with([](SamplingParams& p) { p.top_p = 0; }));
  EXPECT_FALSE(valid_with([](SamplingParams& p) { p.top_p = 1.1; }));
  EXPECT_FALSE(valid_with([](SamplingParams& p) { p.min_p = -0.1; }));
  EXPECT_FALSE(valid_with([](SamplingParams& p) { p.repetition_penalty = 0; }));
  EXPECT_FALSE(valid_with([](SamplingParams& p) { p.presence_penalty = 3; }));
  EXPECT_FALSE(valid_with([](SamplingParams& p) { p.frequency_penalty = std::nan(""); }));
  EXPECT_FALSE(valid_with([](SamplingParams& p) { p.max_tokens = 0; }));
  EXPECT_FALSE(valid_with([](SamplingParams& p) { p.min_tokens = 17; }));
}

}  // namespace
}  // namespace bise
