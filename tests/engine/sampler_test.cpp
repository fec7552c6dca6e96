#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
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
  Sampler sampler(params, 7, {}, vocabulary);
  std::map<std::int32_t, int> counts;
  for (int i = 0; i < count; ++i) {
    const std::int32_t token = sampler.sample(logits, scratch);
    ++counts[token];
    sampler.accept(token);
  }
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
  const std::vector<std::int32_t> prompt = {1, 2, 3};
  Sampler::Scratch scratch(1000), other(1000);
  Sampler a({.seed = 11}, 1, prompt, 1000), b({.seed = 11}, 2, prompt, 1000),
      c({.seed = 12}, 1, prompt, 1000);
  // The same position with a longer prompt and a shorter output.
  const std::vector<std::int32_t> longer(53, 9);
  Sampler d({.seed = 11}, 3, longer, 1000);
  std::set<std::int32_t> seen;
  int equal = 0;
  for (int i = 0; i < 100; ++i) {
    const std::int32_t token = a.sample(logits, scratch);
    EXPECT_EQ(a.sample(logits, other), token);
    EXPECT_EQ(b.sample(logits, other), token);
    equal += c.sample(logits, scratch) == token ? 1 : 0;
    if (i >= 50) {
      EXPECT_EQ(d.sample(logits, scratch), token);
      d.accept(0);
    }
    seen.insert(token);
    for (Sampler* each : {&a, &b, &c}) each->accept(token);
  }
  EXPECT_GT(seen.size(), 80u);
  EXPECT_LT(equal, 5);
}

// Pearson's statistic of counts against probabilities (up to a factor) and its limit: five standard
// deviations above its mean, the degrees of freedom.
void expect_distribution(const std::vector<int>& counts, const std::vector<double>& weights) {
  double total_weight = 0, total = 0, statistic = 0;
  for (const double weight : weights) total_weight += weight;
  for (const int count : counts) total += count;
  int cells = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double expected = weights[i] / total_weight * total;
    if (expected < 10) continue;  // too few for the statistic
    ++cells;
    statistic += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  ASSERT_GT(cells, 1);
  EXPECT_LT(statistic, cells - 1 + 5 * std::sqrt(2.0 * (cells - 1)));
  EXPECT_GT(statistic, cells - 1 - 5 * std::sqrt(2.0 * (cells - 1)));
}

// A vocabulary wider than a vector block, through each way of drawing.
TEST(Sampler, DrawsFromManyTokensWithTheStatedProbabilities) {
  struct Way {
    const char* name;
    std::int64_t top_k;
    double top_p, min_p;
    bool masked;
  };
  constexpr int kDraws = 100000;
  constexpr std::size_t kTokens = 300;
  std::vector<float> logits(kTokens);
  for (std::size_t i = 0; i < kTokens; ++i)
    logits[i] = static_cast<float>(3 * std::sin(static_cast<double>(i * i)) - 2.0 * (i % 7 == 0));
  for (const Way& way : {Way{"all", 0, 1, 0, false}, Way{"top_k", 200, 1, 0, false},
                         Way{"top_p", 0, 0.97, 0, false}, Way{"min_p", 0, 1, 0.02, false},
                         Way{"top_k and top_p", 250, 0.9, 0, false}, Way{"allowed", 0, 1, 0, true}}) {
    SCOPED_TRACE(way.name);
    SamplingParams params{.temperature = 1.3, .top_p = way.top_p, .top_k = way.top_k, .min_p = way.min_p};
    for (std::int32_t token = 0; way.masked && token < 300; token += 2)
      params.allowed_token_ids.push_back(token);
    // The definition: sorted, limited one rule after the other.
    std::vector<std::size_t> order(kTokens);
    for (std::size_t i = 0; i < kTokens; ++i) order[i] = i;
    std::sort(order.begin(), order.end(), [&](auto a, auto b) { return logits[a] > logits[b]; });
    const auto weight = [&](std::size_t i) { return std::exp(static_cast<double>(logits[i]) / 1.3); };
    if (way.masked) std::erase_if(order, [](std::size_t i) { return i % 2 == 1; });
    if (way.min_p > 0)
      std::erase_if(order, [&](std::size_t i) { return weight(i) < way.min_p * weight(order[0]); });
    if (way.top_k > 0) order.resize(static_cast<std::size_t>(way.top_k));
    if (way.top_p < 1) {
      double total = 0, before = 0;
      for (const std::size_t i : order) total += weight(i);
      std::size_t kept = 0;
      while (before < way.top_p * total) before += weight(order[kept++]);
      order.resize(kept);
    }
    std::vector<double> weights(kTokens);
    for (const std::size_t i : order) weights[i] = weight(i);
    std::vector<int> counts(kTokens);
    for (const auto& [token, count] : draw(params, logits, kDraws))
      counts[static_cast<std::size_t>(token)] = count;
    for (std::size_t i = 0; i < kTokens; ++i) ASSERT_TRUE(weights[i] > 0 || counts[i] == 0) << "token " << i;
    expect_distribution(counts, weights);
  }
}

// Draws at neighbouring positions, or with neighbouring seeds, are independent.
TEST(Sampler, NeighbouringDrawsAreIndependent) {
  constexpr int kTokens = 8, kDraws = 40000;
  const std::vector<float> logits(kTokens, 0.0f);
  Sampler::Scratch scratch(kTokens);
  std::vector<int> by_position(kTokens * kTokens), by_seed(kTokens * kTokens);
  Sampler sampler({.seed = 3}, 0, {}, kTokens);
  std::int32_t before = sampler.sample(logits, scratch), with_seed = 0;
  for (int i = 0; i < kDraws; ++i) {
    sampler.accept(0);
    const std::int32_t token = sampler.sample(logits, scratch);
    ++by_position[static_cast<std::size_t>(before * kTokens + token)];
    before = token;
    Sampler next({.seed = static_cast<std::uint64_t>(i)}, 0, {}, kTokens);
    const std::int32_t drawn = next.sample(logits, scratch);
    ++by_seed[static_cast<std::size_t>(with_seed * kTokens + drawn)];
    with_seed = drawn;
  }
  expect_distribution(by_position, std::vector<double>(kTokens * kTokens, 1.0));
  expect_distribution(by_seed, std::vector<double>(kTokens * kTokens, 1.0));
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
    EXPECT_EQ(sampler.sample(each.logits, scratch), each.expected) << each.name;
  }
}

// Allows a fixed set after each accepted token.
class FixedConstraint final : public TokenConstraint {
 public:
  explicit FixedConstraint(std::vector<std::vector<std::int32_t>> allowed) : allowed_(std::move(allowed)) {}
  std::unique_ptr<TokenConstraint> clone() const override { return std::make_unique<FixedConstraint>(*this); }
  void fill_mask(std::span<std::uint32_t> bits) override {
    std::ranges::fill(bits, 0u);
    for (const std::int32_t token : allowed_.at(accepted_))
      bits[static_cast<std::size_t>(token / 32)] |= 1u << (token % 32);
  }
  bool accept(std::int32_t token) override {
    const auto& now = allowed_.at(accepted_);
    if (std::find(now.begin(), now.end(), token) == now.end()) return false;
    ++accepted_;
    return true;
  }
  void rollback(std::int64_t count) override { accepted_ -= static_cast<std::size_t>(count); }

 private:
  std::vector<std::vector<std::int32_t>> allowed_;
  std::size_t accepted_ = 0;
};

// One rule at a time, pairs of rules whose order shows, and rules that leave nothing. Greedy.
TEST(Sampler, RulesInVllmsOrder) {
  struct RuleCase {
    const char* name;
    SamplingParams params;
    std::vector<std::int32_t> output;
    std::vector<float> logits;
    std::int32_t expected;
  };
  const auto only = [](std::vector<std::int32_t> tokens) {
    return std::make_shared<FixedConstraint>(std::vector<std::vector<std::int32_t>>(8, tokens));
  };
  const std::vector<RuleCase> cases = {
      {"bias", {.logit_bias = {{1, 5.0f}, {2, -5.0f}}}, {}, {6, 4, 7}, 1},
      {"bias is at most 100", {.logit_bias = {{0, 500.0f}}}, {}, {0, 101}, 1},
      {"bias is at least -100", {.logit_bias = {{0, -500.0f}}}, {}, {0, -101}, 0},
      {"allowed", {.allowed_token_ids = {0, 2}}, {}, {1, 9, 2}, 2},
      {"bias counts among the allowed",
       {.logit_bias = {{0, 3.0f}}, .allowed_token_ids = {0, 2}},
       {},
       {1, 9, 2},
       0},
      {"bias does not allow", {.logit_bias = {{1, 100.0f}}, .allowed_token_ids = {0, 2}}, {}, {1, 9, 2}, 2},
      {"bias before the penalty", {.repetition_penalty = 2, .logit_bias = {{0, -3.0f}}}, {0}, {2, -1.5f}, 1},
      {"a bad word of one token", {.bad_words = {{1}}}, {}, {1, 9, 2}, 2},
      {"a bad word not begun", {.bad_words = {{0, 1}}}, {2}, {1, 9, 2}, 1},
      {"a bad word about to end", {.bad_words = {{0, 1}}}, {2, 0}, {1, 9, 2}, 2},
      {"of three tokens", {.bad_words = {{2, 0, 1}}}, {0, 2, 0}, {1, 9, 2}, 2},
      {"of three, after another", {.bad_words = {{2, 0, 1}, {0}}}, {0, 0, 0}, {1, 9, 2}, 1},
      {"longer than the output", {.bad_words = {{2, 2, 2, 1}}}, {2, 2}, {1, 9, 2}, 1},
      {"constraint", {.constraint = only({0, 2})}, {}, {1, 9, 2}, 2},
      {"constraint and bad word", {.bad_words = {{2}}, .constraint = only({0, 2})}, {}, {1, 9, 2}, 0},
      {"min_tokens", {.min_tokens = 2, .stop_token_ids = {1}}, {0}, {1, 9, 2}, 2},
      {"min_tokens reached", {.min_tokens = 2, .stop_token_ids = {1}}, {0, 0}, {1, 9, 2}, 1},
      {"nothing left: the constraint wins",
       {.min_tokens = 5, .stop_token_ids = {1}, .constraint = only({1})},
       {},
       {9, 1, 9},
       1},
      {"nothing left: allowed wins over bad words",
       {.allowed_token_ids = {0, 2}, .bad_words = {{0}, {2}}},
       {},
       {1, 9, 2},
       2},
      {"nothing left: all stop tokens", {.min_tokens = 5, .stop_token_ids = {0, 1, 2}}, {}, {1, 9, 2}, 1},
      {"a penalty beyond float32", {.repetition_penalty = 1e-300}, {0}, {1, 9, 2}, 0},
  };
  for (const RuleCase& each : cases) {
    SCOPED_TRACE(each.name);
    SamplingParams params = each.params;
    params.temperature = 0;
    const auto vocabulary = static_cast<std::int64_t>(each.logits.size());
    Sampler sampler(params, 0, {}, vocabulary);
    for (const std::int32_t token : each.output) sampler.accept(token);
    Sampler::Scratch scratch(vocabulary);
    EXPECT_EQ(sampler.sample(each.logits, scratch), each.expected);
    // Drawing from the processed logits is the same; with a temperature nothing removed is drawn either.
    EXPECT_EQ(argmax(sampler.processed_logits(each.logits, scratch)), each.expected);
  }
}

TEST(Sampler, TheConstraintMovesWithTheOutputAndBelongsToOneSequence) {
  SamplingParams params{.temperature = 1};
  params.constraint =
      std::make_shared<FixedConstraint>(std::vector<std::vector<std::int32_t>>{{5}, {40, 41}, {7}, {1}});
  const std::vector<float> logits(64, 0.0f);
  Sampler::Scratch scratch(64);
  for (int sequence = 0; sequence < 3; ++sequence) {
    Sampler sampler(params, static_cast<std::uint64_t>(sequence), {}, 64);
    sampler.prepare();
    EXPECT_EQ(sampler.sample(logits, scratch), 5);
    sampler.accept(5);
    const std::int32_t second = sampler.sample(logits, scratch);
    EXPECT_TRUE(second == 40 || second == 41) << second;
    sampler.accept(second);
    sampler.prepare();
    EXPECT_EQ(sampler.sample(logits, scratch), 7);
  }
}

// Drawing one by one, and from processed logits: what is removed has probability 0, what is kept its own.
TEST(Sampler, ProcessedLogitsAreWhatIsDrawnFrom) {
  const std::vector<float> logits = {1, 4, 2, 3.5f, -1};
  const float kGone = -std::numeric_limits<float>::infinity();
  struct ProcessedCase {
    const char* name;
    SamplingParams params;
    std::vector<float> expected;
  };
  const std::vector<ProcessedCase> cases = {
      {"temperature", {.temperature = 2}, {0.5f, 2, 1, 1.75f, -0.5f}},
      {"greedy", {.temperature = 0, .logit_bias = {{0, 1.0f}}}, {2, 4, 2, 3.5f, -1}},
      {"top_k", {.temperature = 0.5, .top_k = 2}, {kGone, 8, kGone, 7, kGone}},
      {"top_p", {.top_p = 0.6}, {kGone, 4, kGone, 3.5f, kGone}},
      {"min_p e^-2", {.min_p = 0.1353}, {kGone, 4, 2, 3.5f, kGone}},
      {"bad word, then top_k", {.top_k = 2, .bad_words = {{1}}}, {kGone, kGone, 2, 3.5f, kGone}},
  };
  Sampler::Scratch scratch(5);
  for (const ProcessedCase& each : cases) {
    Sampler sampler(each.params, 0, {}, 5);
    const auto processed = sampler.processed_logits(logits, scratch);
    EXPECT_EQ(std::vector<float>(processed.begin(), processed.end()), each.expected) << each.name;
  }
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
  EXPECT_FALSE(valid_with([](SamplingParams& p) { p.logprobs = -3; }));
  EXPECT_FALSE(valid_with([](SamplingParams& p) { p.logit_bias = {{0, std::nanf("")}}; }));
  EXPECT_FALSE(valid_with([](SamplingParams& p) { p.bad_words = {{}}; }));
  const auto valid_id = [](const auto& change) {
    SamplingParams params;
    change(params);
    return valid(params, 100);
  };
  for (const std::int32_t token : {-1, 100, 2000000000}) {
    EXPECT_FALSE(valid_id([&](SamplingParams& p) { p.logit_bias = {{token, 1.0f}}; }));
    EXPECT_FALSE(valid_id([&](SamplingParams& p) { p.allowed_token_ids = {5, token}; }));
    EXPECT_FALSE(valid_id([&](SamplingParams& p) { p.bad_words = {{5, token}}; }));
    EXPECT_FALSE(valid_id([&](SamplingParams& p) { p.logprob_token_ids = {token}; }));
  }
  EXPECT_TRUE(valid_id([](SamplingParams& p) { p.allowed_token_ids = {0, 99}; }));
}

}  // namespace
}  // namespace bise
