#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "engine/engine_core.h"
#include "engine/mock_runner.h"

namespace bise {
namespace {

// A prompt of `tokens` tokens, of which the first `alike` are the same for all and the others its own.
GenerationRequest prompt(std::int64_t tokens, std::int64_t alike, std::int32_t own = 0) {
  GenerationRequest request;
  for (std::int64_t i = 0; i < tokens; ++i)
    request.prompt.push_back(static_cast<std::int32_t>(i < alike ? i % 100 : 100 + own * 50 + i % 50));
  request.sampling.max_tokens = 100;
  return request;
}

struct Bench {
  Bench(const MockRunnerOptions& runner_options, const EngineOptions& options)
      : runner(runner_options), core(runner, options) {}

  RequestId add(const GenerationRequest& request) {
    auto sequence = core.make_sequence(request);
    const RequestId id = sequence->id;
    core.add(std::move(sequence));
    return id;
  }
  StepPlan plan() const {
    StepPlan plan;
    schedule(core.state(), core.options().max_num_batched_tokens, plan);
    return plan;
  }
  void step(int count = 1) {
    for (int i = 0; i < count; ++i) {
      core.step();
      core.clear_outputs();
    }
  }
  // Computes the request's prompt and forgets it; the prompt tokens that the cache served.
  std::int64_t run_once(GenerationRequest request) {
    request.sampling.max_tokens = 1;
    add(request);
    std::int64_t cached = -1;
    while (core.has_work()) {
      core.step();
      for (const auto& each : core.outputs()) cached = each.output.cached_tokens;
      core.clear_outputs();
    }
    return cached;
  }

  MockRunner runner;
  EngineCore core;
};

std::vector<std::int64_t> tokens_of(const StepPlan& plan) {
  std::vector<std::int64_t> tokens;
  for (const PlannedSequence& planned : plan.sequences) tokens.push_back(planned.tokens);
  return tokens;
}

TEST(Scheduler, SharesTheBudgetInOrder) {
  struct Case {
    const char* name;
    EngineOptions options;
    std::vector<std::int64_t> prompts;
    std::vector<std::vector<std::int64_t>> steps;
  };
  const std::vector<Case> cases = {
      {"one token each when all decode", {.max_num_batched_tokens = 300}, {3, 4}, {{3, 4}, {1, 1}}},
      {"a long prompt in chunks, decoding goes on",
       {.max_num_seqs = 4, .max_num_batched_tokens = 10},
       {3, 25, 5},
       {{3, 7}, {1, 9}, {1, 9}, {1, 1, 5}, {1, 1, 1}}},
      {"no more than max_num_seqs", {.max_num_seqs = 2}, {3, 3, 3}, {{3, 3}, {1, 1}}},
      {"a capped chunk leaves room for others",
       {.max_num_seqs = 4, .max_num_batched_tokens = 20, .long_prefill_token_threshold = 6},
       {15, 2},
       {{6, 2}, {6, 1}, {3, 1}, {1, 1}}},
      {"but not for nobody",
       {.max_num_seqs = 4, .max_num_batched_tokens = 20, .long_prefill_token_threshold = 6},
       {15},
       {{15}}},
      {"whole prompts, in order, without chunks",
       {.max_num_seqs = 4,
        .max_num_batched_tokens = 30,
        .max_model_len = 30,
        .enable_chunked_prefill = false},
       {20, 15, 3},
       {{20}, {1, 15, 3}}},
      {"those that run keep a token each",
       {.max_num_seqs = 4, .max_num_batched_tokens = 4, .long_prefill_token_threshold = 3},
       {9, 1, 1},
       {{3, 1}, {3, 1}, {3, 1}, {1, 1, 1}}},
  };
  for (const Case& each : cases) {
    Bench bench({.num_blocks = 200}, each.options);
    std::int32_t own = 0;
    for (const std::int64_t tokens : each.prompts) bench.add(prompt(tokens, 0, own++));
    for (const auto& expected : each.steps) {
      EXPECT_EQ(tokens_of(bench.plan()), expected) << each.name;
      bench.step();
    }
  }
}

TEST(Scheduler, AdmitsWhenTheWholePromptFits) {
  struct Case {
    const char* name;
    std::int64_t blocks;  // that can be used, of 16 tokens
    std::vector<std::int64_t> prompts;
    std::size_t admitted;
  };
  const std::vector<Case> cases = {
      {"exactly", 4, {31, 30}, 2},
      {"not the last token", 4, {32, 33}, 1},
      // A chunk of 20 would fit, the prompt does not.
      {"not a part of it", 4, {32, 60}, 1},
      {"nobody overtakes", 4, {40, 32, 8}, 1},
  };
  for (const Case& each : cases) {
    Bench bench({.num_blocks = each.blocks + 1},
                {.max_num_seqs = 8, .max_num_batched_tokens = 52, .enable_prefix_caching = false});
    for (const std::int64_t tokens : each.prompts) bench.add(prompt(tokens, 0));
    EXPECT_EQ(bench.plan().sequences.size(), each.admitted) << each.name;
    bench.step();
    EXPECT_EQ(bench.plan().sequences.size(), each.admitted) << each.name << ", and not in the next step";
  }
}

TEST(Scheduler, PreemptsWhoIsServedLast) {
  struct Case {
    const char* name;
    SchedulingPolicy policy;
    std::vector<std::int64_t> priorities;
    std::size_t victim;
  };
  const std::vector<Case> cases = {
      {"first come, first served", SchedulingPolicy::kFcfs, {0, 0, 0}, 2},
      {"whatever the priorities", SchedulingPolicy::kFcfs, {9, 5, 0}, 2},
      {"the worst priority", SchedulingPolicy::kPriority, {0, 5, 1}, 1},
      {"of equals the latest", SchedulingPolicy::kPriority, {5, 5, 1}, 1},
      {"even one that was planned already", SchedulingPolicy::kPriority, {7, 0, 1}, 0},
  };
  for (const Case& each : cases) {
    // Three prompts of 32 tokens fill six blocks: their second token needs another.
    Bench bench({.num_blocks = 7},
                {.max_num_seqs = 3, .max_num_batched_tokens = 200, .scheduling_policy = each.policy});
    std::vector<RequestId> ids;
    for (std::size_t i = 0; i < 3; ++i) {
      GenerationRequest request = prompt(32, 0, static_cast<std::int32_t>(i));
      request.priority = each.priorities[i];
      ids.push_back(bench.add(request));
    }
    bench.step();
    const StepPlan plan = bench.plan();
    ASSERT_EQ(plan.preempted.size(), 1u) << each.name;
    EXPECT_EQ(plan.preempted[0]->id, ids[each.victim]) << each.name;
    // The victim's two blocks serve the others.
    EXPECT_EQ(tokens_of(plan), (std::vector<std::int64_t>{1, 1})) << each.name;
    EXPECT_EQ(plan.tokens, 2) << each.name;
    bench.step();
    EXPECT_EQ((*bench.core.state().waiting.begin())->id, ids[each.victim]) << each.name;
    EXPECT_EQ(bench.core.stats().preemptions, 1) << each.name;
  }
}

TEST(Scheduler, NobodyIsPreemptedForGuesses) {
  Bench bench({.num_blocks = 5}, {.max_num_seqs = 2, .num_speculative_tokens = 4, .prompt_lookup_min = 1});
  for (std::int32_t i = 0; i < 2; ++i) bench.add(prompt(30, 30));
  bench.step();
  // Give the first one guesses that need a block which is not there.
  Sequence* first = bench.core.state().running[0];
  first->token_ids.insert(first->token_ids.end(), {1, 2, 3, 4});
  first->drafts = 4;
  ASSERT_EQ(bench.core.state().blocks.pool().free_blocks(), 1) << "the prompts share a block";
  bench.core.finish(bench.core.state().running[1]->id, FinishReason::kAbort);
  bench.core.clear_outputs();
  EXPECT_EQ(tokens_of(bench.plan()), (std::vector<std::int64_t>{5}));
  bench.add(prompt(31, 0, 1));
  EXPECT_EQ(tokens_of(bench.plan()), (std::vector<std::int64_t>{5}))
      << "guesses of those that run come first";
}

// Requests that arrive together compute what they have in common once.
TEST(Scheduler, RequestsOfOneStepShare) {
  Bench bench({.num_blocks = 100}, {.max_num_seqs = 8, .max_num_batched_tokens = 500});
  for (std::int32_t own = 0; own < 3; ++own) bench.add(prompt(50, 40, own));
  bench.add(prompt(64, 64));
  bench.add(prompt(64, 64));
  // 40 alike: two blocks of 16. The same 64: the last token is computed again.
  EXPECT_EQ(tokens_of(bench.plan()), (std::vector<std::int64_t>{50, 18, 18, 32, 16}));
  bench.step();
  EXPECT_EQ(bench.core.stats().used_blocks, 4 + 2 + 2 + 2 + 1);
  EXPECT_EQ(bench.core.stats().prefix_cache_hits, 32 + 32 + 32 + 48);
}

TEST(Scheduler, APrefixHitEndsBeforeTheLastToken) {
  struct Case {
    const char* name;
    GenerationRequest request;
    std::int64_t cached;
  };
  std::vector<Case> cases = {
      {"another prompt", prompt(100, 0, 3), 0},
      {"less than a block alike", prompt(100, 15), 0},
      {"a block", prompt(100, 16), 16},
      {"blocks only", prompt(100, 50), 48},
      {"all alike, longer", prompt(100, 100), 64},
      {"the same", prompt(64, 64), 48},
      {"one more", prompt(65, 65), 64},
      {"shorter", prompt(17, 17), 16},
      {"one block", prompt(16, 16), 0},
      {"another salt", prompt(64, 64), 0},
      {"prompt log-probabilities", prompt(64, 64), 0},
  };
  cases[9].request.cache_salt = "salt";
  cases[10].request.sampling.prompt_logprobs = 0;
  for (const Case& each : cases) {
    Bench bench({.num_blocks = 100}, {});
    EXPECT_EQ(bench.run_once(prompt(64, 64)), 0);
    EXPECT_EQ(bench.run_once(each.request), each.cached) << each.name;
  }
  // A request that may not read the cache fills it for others.
  Bench bench({.num_blocks = 100}, {});
  bench.run_once(cases[10].request);
  EXPECT_EQ(bench.run_once(prompt(65, 65)), 64);
}

// Ten usable blocks hold two prompts of five blocks; a third one of `tokens` tokens makes room for itself.
TEST(Scheduler, ForgetsTheEndOfTheOldestPromptFirst) {
  struct Case {
    std::int64_t tokens, first_cached, second_cached;
  };
  for (const Case& each :
       std::vector<Case>{{16, 64, 80}, {32, 48, 80}, {80, 0, 80}, {96, 0, 64}, {160, 0, 0}}) {
    for (const bool ask_first : {true, false}) {
      Bench bench({.num_blocks = 11}, {.max_num_batched_tokens = 512});
      bench.run_once(prompt(80, 0, 1));
      bench.run_once(prompt(80, 0, 2));
      bench.run_once(prompt(each.tokens, 0, 3));
      // One more token than before, so that the last block may count.
      EXPECT_EQ(bench.run_once(prompt(81, 0, ask_first ? 1 : 2)),
                ask_first ? each.first_cached : each.second_cached)
          << each.tokens;
    }
  }
}

// Free blocks that two newcomers share are counted once, and not given away as if they were free.
TEST(Scheduler, SharedFreeBlocksCountOnce) {
  for (const std::int64_t blocks : {6, 5}) {
    Bench bench({.num_blocks = blocks + 1}, {.max_num_seqs = 4, .max_num_batched_tokens = 512});
    bench.run_once(prompt(64, 64));
    // Four blocks in common and one of its own each.
    for (std::int32_t own = 1; own < 3; ++own) bench.add(prompt(70, 64, own));
    EXPECT_EQ(bench.plan().sequences.size(), blocks == 6 ? 2u : 1u);
    bench.step();
    EXPECT_EQ(bench.core.stats().used_blocks, blocks);
  }
}

TEST(Scheduler, WindowsNeedTheirLastBlocksOnly) {
  // Window 20: 19 tokens before a block's begin, two blocks.
  Bench bench({.num_blocks = 100, .windows = {20}}, {.max_num_batched_tokens = 512});
  EXPECT_EQ(bench.run_once(prompt(160, 160)), 0);
  bench.add(prompt(161, 161));
  bench.step();
  EXPECT_EQ(bench.core.stats().prefix_cache_hits, 160);
  EXPECT_EQ(bench.core.stats().used_blocks, 3) << "two blocks within the window and the new one";
  EXPECT_EQ(bench.core.state().running[0]->freed_blocks[0], 8);
}

}  // namespace
}  // namespace bise
