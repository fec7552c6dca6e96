#include "engine/logprobs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "base/error.h"

namespace bise {
namespace {

std::vector<float> random_logits(std::size_t count, float deviation, std::uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0, deviation);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(engine);
  return logits;
}

TEST(Logprobs, EqualADoubleReference) {
  for (const std::size_t count : {std::size_t{7}, std::size_t{300}, std::size_t{49152}})
    for (const float deviation : {0.5f, 3.0f, 30.0f}) {
      const auto logits = random_logits(count, deviation, static_cast<std::uint32_t>(count));
      std::vector<std::int32_t> order(count);
      for (std::size_t i = 0; i < count; ++i) order[i] = static_cast<std::int32_t>(i);
      const auto logit = [&](std::int32_t token) {
        return static_cast<double>(logits[static_cast<std::size_t>(token)]);
      };
      std::sort(order.begin(), order.end(),
                [&](auto a, auto b) { return logit(a) > logit(b) || (logit(a) == logit(b) && a < b); });
      double sum = 0;
      for (const float each : logits) sum += std::exp(static_cast<double>(each) - logit(order[0]));
      const double normalizer = logit(order[0]) + std::log(sum);
      LogprobsScratch scratch(static_cast<std::int64_t>(count));
      PositionLogprobs result;
      for (const std::int64_t wanted : {std::int64_t{0}, std::int64_t{1}, std::int64_t{5}, std::int64_t{20},
                                        SamplingParams::kAllLogprobs})
        for (const std::size_t rank : {std::size_t{0}, std::size_t{3}, count - 1}) {
          SCOPED_TRACE(testing::Message() << count << " " << deviation << " " << wanted << " " << rank);
          position_logprobs(logits, order[rank], {wanted, {}, false}, scratch, result);
          EXPECT_EQ(result.token.token, order[rank]);
          EXPECT_NEAR(result.token.logprob, logit(order[rank]) - normalizer, 1e-6);
          EXPECT_EQ(result.rank, std::count_if(logits.begin(), logits.end(), [&](float each) {
                      return static_cast<double>(each) >= logit(order[rank]);
                    }));
          const std::size_t reported = wanted < 0 ? count : std::min(count, static_cast<std::size_t>(wanted));
          ASSERT_EQ(result.top.size(), reported);
          for (std::size_t i = 0; i < reported; ++i) {
            ASSERT_EQ(result.top[i].token, order[i]);
            ASSERT_NEAR(result.top[i].logprob, logit(order[i]) - normalizer, 1e-6);
          }
        }
    }
}

TEST(Logprobs, ReportsWhatIsAskedForBesides) {
  const std::vector<float> logits = {1, 5, 3, 5, 0};
  LogprobsScratch scratch(5);
  PositionLogprobs result;
  const std::vector<std::int32_t> ids = {0, 1, 2};
  position_logprobs(logits, 3, {2, ids, true}, scratch, result);
  const std::vector<TokenLogprob> expected = {{1, 5}, {3, 5}, {2, 3}, {0, 1}};
  EXPECT_EQ(result.top, expected);
  EXPECT_EQ(result.token, (TokenLogprob{3, 5}));
  EXPECT_EQ(result.rank, 2);  // two are as likely
}

TEST(Logprobs, ModesHaveVllmsNames) {
  for (const LogprobsMode mode : {LogprobsMode::kRawLogprobs, LogprobsMode::kProcessedLogprobs,
                                  LogprobsMode::kRawLogits, LogprobsMode::kProcessedLogits})
    EXPECT_EQ(parse_logprobs_mode(logprobs_mode_name(mode)), mode);
  EXPECT_EQ(logprobs_mode_name(LogprobsMode::kProcessedLogprobs), "processed_logprobs");
  EXPECT_THROW(parse_logprobs_mode("logprobs"), Error);
}

}  // namespace
}  // namespace bise
