#include "engine/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/error.h"
#include "engine/log_softmax.h"
#include "engine/scorer.h"
#include "tests/model/test_backends.h"
#include "tests/model/tiny_model.h"

namespace bise {
namespace {

TEST(Scorer, LogprobsAndTopFollowFromTheLogits) {
  ThreadPool pool(2);
  for (const auto& backend : test_backends(pool)) {
    const TinyModel model = tiny_model(*backend, tiny_config());
    Decoder decoder(*backend, model.config, model.weights, {.max_tokens = 24, .max_logit_rows = 5});
    std::vector<std::vector<std::int32_t>> sequences;
    for (const std::int64_t length : {3, 60, 1, 7, 7, 24})  // longer than a step, and shorter
      sequences.push_back(random_tokens(length, 320, static_cast<std::uint32_t>(length)));
    const std::vector<TokenScores> scores = score(decoder, pool, sequences, 4);
    const std::vector<TokenScores> without_top = score(decoder, pool, sequences, 0);
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      const std::vector<std::int32_t>& tokens = sequences[s];
      const std::vector<float> logits = all_logits(decoder, tokens, 24);
      ASSERT_EQ(scores[s].logprobs.size(), tokens.size());
      ASSERT_EQ(scores[s].top.size(), tokens.size());
      EXPECT_TRUE(without_top[s].top.empty());
      EXPECT_TRUE(std::isnan(scores[s].logprobs[0]));
      for (std::size_t i = 0; i < tokens.size(); ++i) {
        const auto row = std::span(logits).subspan(i * 320, 320);
        const double sum = log_sum_exp(row);
        EXPECT_EQ(scores[s].top[i], top_logprobs(row, sum, 4)) << backend->name();
        if (i + 1 == tokens.size()) continue;
        EXPECT_EQ(scores[s].logprobs[i + 1],
                  static_cast<double>(row[static_cast<std::size_t>(tokens[i + 1])]) - sum);
        EXPECT_EQ(without_top[s].logprobs[i + 1], scores[s].logprobs[i + 1]);
      }
    }
  }
}

TEST(Perplexity, CountsTheSecondHalfOfEachWindow) {
  ThreadPool pool(2);
  const auto backend = make_reference_backend();
  const TinyModel model = tiny_model(*backend, tiny_config());
  Decoder decoder(*backend, model.config, model.weights, {.max_tokens = 50, .max_logit_rows = 7});
  const auto tokens = random_tokens(70, 320, 4);  // four windows of 16; six tokens are dropped
  const PerplexityResult result = perplexity(decoder, pool, tokens, {.window = 16});
  ASSERT_EQ(result.windows, 4);
  double half = 0, all = 0;
  for (std::size_t w = 0; w < 4; ++w) {
    const std::vector<std::int32_t> window(tokens.begin() + static_cast<std::ptrdiff_t>(w * 16),
                                           tokens.begin() + static_cast<std::ptrdiff_t>(w * 16 + 16));
    const TokenScores scores = score(decoder, pool, {&window, 1}, 0)[0];
    double sum = 0;
    for (std::size_t i = 1; i < 16; ++i) {
      all -= scores.logprobs[i];
      if (i > 8) sum -= scores.logprobs[i];  // predictions made from positions 8..14
    }
    EXPECT_NEAR(result.window_nll_sums[w], sum, 1e-9);
    half += sum;
  }
  EXPECT_NEAR(result.ppl, std::exp(half / (4 * 7)), 1e-9);
  EXPECT_NEAR(result.ppl_all, std::exp(all / (4 * 15)), 1e-9);
  EXPECT_EQ(perplexity(decoder, pool, tokens, {.window = 16, .max_windows = 2}).windows, 2);
  EXPECT_THROW(perplexity(decoder, pool, std::span(tokens).first(15), {.window = 16}), Error);
  EXPECT_THROW(perplexity(decoder, pool, std::vector<std::int32_t>(16, 320), {.window = 16}), Error);
}

TEST(CompareLogits, MeasuresTheDistanceToTheOriginal) {
  ThreadPool pool(2);
  const auto backend = make_reference_backend();
  const TinyModel base = tiny_model(*backend, tiny_config(), 1),
                  other = tiny_model(*backend, tiny_config(), 2);
  Decoder base_decoder(*backend, base.config, base.weights, {.max_tokens = 32, .max_logit_rows = 5});
  Decoder other_decoder(*backend, other.config, other.weights, {.max_tokens = 40, .max_logit_rows = 9});
  const auto tokens = random_tokens(64, 320, 4);
  const LogitComparison same = compare_logits(base_decoder, base_decoder, pool, tokens, {.window = 16});
  EXPECT_NEAR(same.mean_kl, 0, 1e-9);
  EXPECT_EQ(same.same_top, 1);
  EXPECT_EQ(same.base.ppl, same.quantized.ppl);

  const LogitComparison apart = compare_logits(base_decoder, other_decoder, pool, tokens, {.window = 16});
  EXPECT_EQ(apart.base.ppl, perplexity(base_decoder, pool, tokens, {.window = 16}).ppl);
  EXPECT_EQ(apart.quantized.ppl, perplexity(other_decoder, pool, tokens, {.window = 16}).ppl);
  double kl = 0, top = 0;
  for (std::size_t w = 0; w < 4; ++w) {
    const auto window = std::span(tokens).subspan(w * 16, 16);
    const auto p = all_logits(base_decoder, window, 16), q = all_logits(other_decoder, window, 16);
    for (std::size_t i = 8; i < 15; ++i) {
      const auto p_row = std::span(p).subspan(i * 320, 320), q_row = std::span(q).subspan(i * 320, 320);
      kl += kl_divergence(p_row, log_sum_exp(p_row), q_row, log_sum_exp(q_row)) / 28;
      top += top_logprobs(p_row, 0, 1)[0].token == top_logprobs(q_row, 0, 1)[0].token ? 1.0 / 28 : 0;
    }
  }
  EXPECT_NEAR(apart.mean_kl, kl, 1e-9);
  EXPECT_NEAR(apart.same_top, top, 1e-9);
  EXPECT_GT(apart.mean_kl, 0.1);
}

}  // namespace
}  // namespace bise
