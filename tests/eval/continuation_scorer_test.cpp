// Scores of continuations do not depend on what else is scored, and what sequences share runs once.
#include "engine/continuation_scorer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "engine/scorer.h"
#include "tests/model/test_backends.h"
#include "tests/model/tiny_model.h"

namespace bise {
namespace {

using Tokens = std::vector<std::int32_t>;

ScoredSequence sequence(const Tokens& context, std::uint32_t seed, std::int64_t length) {
  ScoredSequence result{context, static_cast<std::int64_t>(context.size())};
  for (const std::int32_t token : random_tokens(length, 320, seed)) result.token_ids.push_back(token);
  return result;
}

// Contexts longer than a step and shorter than a block, each with several continuations; one sequence twice;
// one that is the beginning of another.
std::vector<ScoredSequence> cases() {
  const Tokens long_context = random_tokens(90, 320, 1), short_context = random_tokens(3, 320, 2);
  std::vector<ScoredSequence> sequences;
  for (std::uint32_t seed = 10; seed < 14; ++seed) {
    sequences.push_back(sequence(long_context, seed, 1 + seed % 3));
    sequences.push_back(sequence(short_context, seed, 40));
  }
  sequences.push_back(sequences.front());
  sequences.push_back(sequence(sequences[1].token_ids, 20, 5));
  sequences.push_back(sequence({7}, 21, 1));
  return sequences;
}

TEST(ContinuationScorer, EqualsScoringEachSequenceAlone) {
  ThreadPool pool(2);
  for (const auto& backend : test_backends(pool)) {
    const TinyModel model = tiny_model(*backend, tiny_config());
    Decoder decoder(*backend, model.config, model.weights, {.max_tokens = 32, .max_logit_rows = 5});
    const std::vector<ScoredSequence> sequences = cases();
    ContinuationScorer scorer(decoder, pool, DType::kF32);
    std::vector<int> reports(sequences.size());
    const auto scores =
        scorer.score(sequences, [&](std::size_t i, const ContinuationScore&) { ++reports[i]; });
    for (std::size_t s = 0; s < sequences.size(); ++s) {
      EXPECT_EQ(reports[s], 1);
      const TokenScores alone = score(decoder, pool, {&sequences[s].token_ids, 1}, 1, DType::kF32)[0];
      double sum = 0;
      bool greedy = true;
      for (auto i = static_cast<std::size_t>(sequences[s].first); i < alone.logprobs.size(); ++i) {
        sum += alone.logprobs[i];
        greedy &= alone.top[i - 1][0].token == sequences[s].token_ids[i];
      }
      EXPECT_NEAR(scores[s].logprob, sum, 1e-3) << backend->name() << " sequence " << s;
      EXPECT_EQ(scores[s].greedy, greedy) << backend->name() << " sequence " << s;
    }
    EXPECT_LT(scorer.computed_tokens(), scorer.given_tokens() - 3 * 64) << "the long context runs once";
  }
}

}  // namespace
}  // namespace bise
