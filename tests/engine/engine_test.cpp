#include "engine/engine.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "base/error.h"
#include "engine/mock_runner.h"

namespace bise {
namespace {

// What the listeners of some requests heard.
class Heard {
 public:
  Engine::Listener listener(std::size_t index) {
    return [this, index](RequestOutput&& output) {
      const std::lock_guard lock(mutex_);
      if (results_.size() <= index) results_.resize(index + 1);
      GenerationResult& result = results_[index];
      result.token_ids.insert(result.token_ids.end(), output.token_ids.begin(), output.token_ids.end());
      if (!output.finish_reason) return;
      result.finish_reason = *output.finish_reason;
      result.stop_token_id = output.stop_token_id;
      ++ended_;
      changed_.notify_all();
    };
  }
  std::vector<Engine::Listener> listeners(std::size_t count) {
    std::vector<Engine::Listener> all;
    for (std::size_t i = 0; i < count; ++i) all.push_back(listener(i));
    return all;
  }
  bool wait_for_ended(std::size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return ended_ >= count; });
  }
  GenerationResult result(std::size_t index) {
    const std::lock_guard lock(mutex_);
    return results_.size() > index ? results_[index] : GenerationResult{};
  }
  std::size_t ended() {
    const std::lock_guard lock(mutex_);
    return ended_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<GenerationResult> results_;
  std::size_t ended_ = 0;
};

std::vector<std::int32_t> numbers(std::int32_t first, std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  for (std::size_t i = 0; i < count; ++i) tokens[i] = first + static_cast<std::int32_t>(i);
  return tokens;
}

std::unique_ptr<MockRunner> mock(const MockRunnerOptions& options = {}) {
  return std::make_unique<MockRunner>(options);
}

// What the mock generates after a prompt.
std::vector<std::int32_t> continuation(const MockRunner& runner, std::vector<std::int32_t> tokens,
                                       std::size_t count) {
  const std::size_t prompt = tokens.size();
  while (tokens.size() < prompt + count)
    tokens.push_back(runner.token_after(tokens.back(), static_cast<std::int64_t>(tokens.size())));
  return {tokens.begin() + static_cast<std::ptrdiff_t>(prompt), tokens.end()};
}

TEST(Engine, RunsRequestsToTheirEnd) {
  Heard heard;
  auto runner = mock();
  const MockRunner reference({});
  Engine engine(std::move(runner), {.max_num_seqs = 4, .max_num_batched_tokens = 32, .max_model_len = 512});
  RequestId id = 0;
  for (std::size_t i = 0; i < 20; ++i)
    EXPECT_EQ(engine.submit({numbers(static_cast<std::int32_t>(i), 1 + 7 * i),
                             {.max_tokens = 1 + static_cast<std::int64_t>(i)}},
                            heard.listener(i), id),
              Admission::kAccepted);
  ASSERT_TRUE(heard.wait_for_ended(20));
  for (std::size_t i = 0; i < 20; ++i) {
    EXPECT_EQ(heard.result(i).token_ids,
              continuation(reference, numbers(static_cast<std::int32_t>(i), 1 + 7 * i), 1 + i));
    EXPECT_EQ(heard.result(i).finish_reason, FinishReason::kLength);
  }
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.running, 0);
  EXPECT_EQ(stats.waiting, 0);
  EXPECT_EQ(stats.used_blocks, 0);
  EXPECT_EQ(stats.generation_tokens, 210);
}

TEST(Engine, StopTokensEndARequestAfterMinTokens) {
  const MockRunner reference({});
  const std::vector<std::int32_t> expected = continuation(reference, {1, 2, 3}, 10);
  for (const std::int64_t min_tokens : {0, 4}) {
    Heard heard;
    Engine engine(mock(), {});
    RequestId id = 0;
    ASSERT_EQ(
        engine.submit(
            {{1, 2, 3},
             {.max_tokens = 10, .min_tokens = min_tokens, .stop_token_ids = {expected[2], expected[6]}}},
            heard.listener(0), id),
        Admission::kAccepted);
    ASSERT_TRUE(heard.wait_for_ended(1));
    const std::size_t length = min_tokens == 0 ? 3 : 7;
    EXPECT_EQ(heard.result(0).token_ids.size(), length);
    EXPECT_EQ(heard.result(0).finish_reason, FinishReason::kStop);
    EXPECT_EQ(heard.result(0).stop_token_id, expected[length - 1]);
  }
}

TEST(Engine, FindsRepeatedEnds) {
  struct Case {
    std::vector<std::int32_t> tokens;
    RepetitionDetection detection;
    bool repeats;
  };
  for (const Case& test : std::vector<Case>{
           {{1, 1, 1}, {}, false},
           {{1, 1, 1}, {.max_pattern_size = 1, .min_count = 3}, true},
           {{1, 1, 1}, {.max_pattern_size = 1, .min_count = 4}, false},
           {{1, 1, 2}, {.max_pattern_size = 3, .min_count = 2}, false},
           {{9, 1, 2, 1, 2}, {.max_pattern_size = 2, .min_count = 2}, true},
           {{9, 1, 2, 1, 2}, {.max_pattern_size = 1, .min_count = 2}, false},
           {{7, 7}, {.max_pattern_size = 4, .min_pattern_size = 2, .min_count = 2}, false},
           {{7, 7, 7, 7}, {.max_pattern_size = 4, .min_pattern_size = 2, .min_count = 2}, true},
           {{1, 2, 3, 1, 2, 3, 1, 2}, {.max_pattern_size = 4, .min_count = 2}, true},
           {{1, 2, 3, 1, 2, 3, 4}, {.max_pattern_size = 4, .min_count = 2}, false},
           {{1, 2}, {.max_pattern_size = INT64_MAX, .min_pattern_size = 1, .min_count = INT64_MAX}, false},
           {{}, {.max_pattern_size = 3, .min_count = 2}, false},
       })
    EXPECT_EQ(ends_repeating(test.tokens, test.detection), test.repeats)
        << testing::PrintToString(test.tokens) << " " << test.detection.max_pattern_size;
}

TEST(Engine, FinishEndsARequestWithinOneStep) {
  Heard heard;
  std::atomic<std::int64_t> steps = 0;
  Engine engine(mock({.num_blocks = 4096, .seconds_per_step = 0.002}), {.max_model_len = 60'000},
                [&](std::int64_t) { ++steps; });
  std::vector<RequestId> ids;
  ASSERT_EQ(engine.submit({{1, 2, 3}, {.max_tokens = 50'000}}, heard.listeners(3), ids),
            Admission::kAccepted);
  while (steps < 5) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const std::int64_t before = steps;
  engine.finish(ids[1], FinishReason::kAbort);
  engine.finish(ids[2], FinishReason::kStop);
  engine.finish(12345, FinishReason::kAbort);
  ASSERT_TRUE(heard.wait_for_ended(2));
  EXPECT_LE(steps - before, 2);
  EXPECT_EQ(heard.result(1).finish_reason, FinishReason::kAbort);
  EXPECT_EQ(heard.result(2).finish_reason, FinishReason::kStop);
  EXPECT_EQ(engine.stats().running, 1);
  engine.finish(ids[1], FinishReason::kAbort);
  engine.stop(0);
  EXPECT_EQ(heard.ended(), 3u);
  EXPECT_EQ(heard.result(0).finish_reason, FinishReason::kAbort);
  EXPECT_EQ(engine.submit({{1}, {}}, heard.listener(3), ids[0]), Admission::kStopped);
}

TEST(Engine, StopLetsRequestsEnd) {
  Heard heard;
  Engine engine(mock({.seconds_per_step = 0.001}), {});
  std::vector<RequestId> ids;
  ASSERT_EQ(engine.submit({{1, 2, 3}, {.max_tokens = 30}}, heard.listeners(8), ids), Admission::kAccepted);
  engine.stop(30);
  EXPECT_EQ(heard.ended(), 8u);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(heard.result(i).finish_reason, FinishReason::kLength);
  EXPECT_TRUE(engine.healthy());
}

class FailingRunner final : public ModelRunner {
 public:
  explicit FailingRunner(int steps) : left_(steps) {}
  std::int64_t vocab_size() const override { return mock_.vocab_size(); }
  std::int64_t num_blocks() const override { return mock_.num_blocks(); }
  std::int64_t block_size() const override { return mock_.block_size(); }
  const KvLayout& kv_layout() const override { return mock_.kv_layout(); }
  void launch(std::span<const StepSequence> sequences) override { mock_.launch(sequences); }
  std::span<const StepResult> results() override {
    if (left_-- == 0) throw std::runtime_error("the device is gone");
    return mock_.results();
  }

 private:
  MockRunner mock_{{}};
  int left_;
};

TEST(Engine, AFailedStepEndsAllRequests) {
  Heard heard;
  Engine engine(std::make_unique<FailingRunner>(3), {.max_num_seqs = 2});
  std::vector<RequestId> ids;
  ASSERT_EQ(engine.submit({{1, 2, 3}, {.max_tokens = 30}}, heard.listeners(5), ids), Admission::kAccepted);
  ASSERT_TRUE(heard.wait_for_ended(5));
  EXPECT_FALSE(engine.healthy());
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(heard.result(i).finish_reason, FinishReason::kError);
  EXPECT_EQ(heard.result(0).token_ids.size(), 3u);
  EXPECT_EQ(heard.result(4).token_ids.size(), 0u);
  EXPECT_EQ(engine.submit({{1}, {}}, heard.listener(5), ids[0]), Admission::kStopped);
}

TEST(Engine, RefusesWhatCannotRun) {
  struct Case {
    GenerationRequest request;
    Admission expected;
  };
  const std::vector<Case> cases = {
      {{{}, {}}, Admission::kEmptyPrompt},
      {{numbers(0, 64), {}}, Admission::kPromptTooLong},
      {{numbers(0, 63), {}}, Admission::kAccepted},
      {{{1000}, {}}, Admission::kTokenOutOfVocabulary},
      {{{-1}, {}}, Admission::kTokenOutOfVocabulary},
      {{{1}, {.top_p = 0}}, Admission::kBadSampling},
      {{{1}, {.min_p = 0.1}}, Admission::kBadSampling},
      {{{1}, {.logit_bias = {{1, 1.f}}}}, Admission::kBadSampling},
  };
  Heard heard;
  // Four blocks of 16 hold sequences of up to 64 tokens.
  Engine engine(mock({.num_blocks = 5}), {.num_speculative_tokens = 2});
  EXPECT_EQ(engine.options().max_model_len, 64);
  RequestId id = 0;
  for (std::size_t i = 0; i < cases.size(); ++i) {
    EXPECT_EQ(engine.admission(cases[i].request), cases[i].expected) << i;
    EXPECT_EQ(engine.submit(cases[i].request, heard.listener(i), id), cases[i].expected) << i;
  }
  Engine plain(mock(), {});
  EXPECT_EQ(plain.admission(cases[6].request), Admission::kAccepted);
  EXPECT_EQ(plain.admission(cases[7].request), Admission::kAccepted);

  for (const EngineOptions& wrong : std::vector<EngineOptions>{
           {.max_num_seqs = 0},
           {.max_num_seqs = 64, .max_num_batched_tokens = 32},
           {.max_num_batched_tokens = 1024, .max_model_len = 2048, .enable_chunked_prefill = false},
           {.num_speculative_tokens = 2, .prompt_lookup_min = 0},
           {.num_speculative_tokens = 2, .prompt_lookup_min = 4, .prompt_lookup_max = 3}})
    EXPECT_THROW(Engine(mock(), wrong), Error);
}

TEST(Engine, LimitsTheQueue) {
  Heard heard;
  Engine engine(mock({.seconds_per_step = 0.01}),
                {.max_num_seqs = 2, .max_num_queued_reqs = 3, .max_num_queued_tokens = 20});
  RequestId id = 0;
  std::vector<Admission> answers;
  const auto submit = [&](std::size_t tokens) {
    answers.push_back(
        engine.submit({numbers(1, tokens), {.max_tokens = 1000}}, heard.listener(answers.size()), id));
  };
  for (int i = 0; i < 2; ++i) submit(100);
  while (engine.stats().running < 2) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  for (const std::size_t tokens : {8, 8, 8, 4, 1}) submit(tokens);
  EXPECT_EQ(answers, (std::vector<Admission>{Admission::kAccepted, Admission::kAccepted, Admission::kAccepted,
                                             Admission::kAccepted, Admission::kQueueTokensFull,
                                             Admission::kAccepted, Admission::kQueueFull}));
  EXPECT_EQ(engine.stats().waiting, 3);
}

TEST(Engine, ForgetsPrefixesWhenNothingRuns) {
  Heard heard;
  Engine engine(mock(), {});
  RequestId id = 0;
  std::size_t count = 0;
  const auto run = [&] {
    ASSERT_EQ(engine.submit({numbers(1, 100), {.max_tokens = 2}}, heard.listener(count), id),
              Admission::kAccepted);
    ASSERT_TRUE(heard.wait_for_ended(++count));
  };
  run();
  run();
  EXPECT_EQ(engine.stats().prefix_cache_hits, 96);
  EXPECT_TRUE(engine.reset_prefix_cache());
  run();
  EXPECT_EQ(engine.stats().prefix_cache_hits, 96);
  run();
  EXPECT_EQ(engine.stats().prefix_cache_hits, 192);
}

// Many threads submit, abort and look at the same time.
TEST(Engine, ManyThreadsUseIt) {
  constexpr std::size_t kThreads = 4, kEach = 60;
  Heard heard;
  Engine engine(mock({.num_blocks = 40}), {.max_num_seqs = 8, .max_num_batched_tokens = 64});
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      RequestId id = 0;
      for (std::size_t i = 0; i < kEach; ++i) {
        ASSERT_EQ(engine.submit({numbers(static_cast<std::int32_t>(i % 7), 1 + i),
                                 {.max_tokens = static_cast<std::int64_t>(1 + i % 31)}},
                                heard.listener(t * kEach + i), id),
                  Admission::kAccepted);
        if (i % 5 == 0) engine.finish(id, FinishReason::kAbort);
        if (i % 16 == 0) engine.reset_prefix_cache();
        EXPECT_TRUE(engine.healthy());
        EXPECT_LE(engine.stats().used_blocks, 39);
      }
    });
  for (std::thread& thread : threads) thread.join();
  ASSERT_TRUE(heard.wait_for_ended(kThreads * kEach));
  EXPECT_EQ(engine.stats().used_blocks, 0);
}

}  // namespace
}  // namespace bise
