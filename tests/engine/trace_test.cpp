// Random lives of an engine: arrivals, lengths, aborts, small caches, priorities, windows, speculation. After
// every step the books must balance; every request must get what it would get alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "engine/engine_core.h"
#include "tests/engine/checking_runner.h"

namespace bise {
namespace {

class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_(seed) {}
  std::int64_t between(std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(engine_);
  }
  bool chance(double probability) { return std::bernoulli_distribution(probability)(engine_); }
  template <class T>
  const T& pick(const std::vector<T>& values) {
    return values[static_cast<std::size_t>(between(0, static_cast<std::int64_t>(values.size()) - 1))];
  }

 private:
  std::mt19937 engine_;
};

struct Setting {
  CheckingRunnerOptions runner;
  EngineOptions engine;
};

Setting random_setting(Random& random) {
  Setting setting;
  EngineOptions& engine = setting.engine;
  CheckingRunnerOptions& runner = setting.runner;
  runner.block_size = random.pick<std::int64_t>({1, 2, 4, 16});
  runner.windows = random.pick<std::vector<std::int64_t>>(
      {{0}, {0}, {0, 0}, {7}, {0, 5}, {1, 0}, {9, 0, 4}, {16, 33}, {3, 3, 3}});
  engine.max_model_len = random.between(8, 100);
  engine.max_num_seqs = random.between(1, 9);
  engine.max_num_batched_tokens = engine.max_num_seqs + random.between(0, 60);
  engine.enable_chunked_prefill = random.chance(0.8);
  if (!engine.enable_chunked_prefill)
    engine.max_num_batched_tokens = std::max(engine.max_num_batched_tokens, engine.max_model_len);
  engine.enable_prefix_caching = random.chance(0.8);
  engine.long_prefill_token_threshold = random.chance(0.3) ? random.between(1, 20) : 0;
  engine.scheduling_policy = random.chance(0.3) ? SchedulingPolicy::kPriority : SchedulingPolicy::kFcfs;
  engine.num_speculative_tokens = random.chance(0.4) ? random.between(1, 5) : 0;
  engine.prompt_lookup_min = random.between(1, 3);
  engine.prompt_lookup_max = engine.prompt_lookup_min + random.between(0, 2);
  // From hardly enough for one sequence to enough for all.
  const std::int64_t for_one =
      static_cast<std::int64_t>(runner.windows.size()) * (engine.max_model_len / runner.block_size + 1);
  runner.num_blocks = 3 + for_one * random.between(1, 2 * engine.max_num_seqs + 2) / 2;
  runner.max_tokens = engine.max_num_batched_tokens;
  runner.max_sequences = engine.max_num_seqs;
  runner.max_length = engine.max_model_len;
  return setting;
}

// Prompts begin alike, for the prefix cache.
GenerationRequest random_request(Random& random, std::int64_t max_model_len) {
  GenerationRequest request;
  const std::int64_t length = random.between(1, max_model_len - 1);
  const std::int64_t family = random.between(0, 2), alike = random.between(0, length);
  for (std::int64_t i = 0; i < length; ++i)
    request.prompt.push_back(
        static_cast<std::int32_t>(i < alike ? (i * i + family * i + family) % 5 : random.between(0, 5)));
  request.sampling.max_tokens = random.between(1, 40);
  if (random.chance(0.3)) request.sampling.stop_token_ids = {static_cast<std::int32_t>(random.between(0, 5))};
  request.sampling.min_tokens = random.between(0, request.sampling.max_tokens / 2);
  if (random.chance(0.1)) request.sampling.prompt_logprobs = 1;
  if (random.chance(0.2)) request.cache_salt = "salt";
  request.priority = random.between(0, 3);
  return request;
}

// What the request gets when it is alone.
GenerationResult alone(const GenerationRequest& request, const CheckingRunner& runner,
                       std::int64_t max_model_len) {
  GenerationResult result;
  const SamplingParams& sampling = request.sampling;
  std::vector<std::int32_t> tokens = request.prompt;
  while (true) {
    const std::int32_t token = runner.token_after(tokens);
    tokens.push_back(token);
    result.token_ids.push_back(token);
    const auto generated = static_cast<std::int64_t>(result.token_ids.size());
    if (generated > sampling.min_tokens && std::ranges::count(sampling.stop_token_ids, token) > 0) {
      result.finish_reason = FinishReason::kStop;
      result.stop_token_id = token;
      return result;
    }
    if (generated == sampling.max_tokens || static_cast<std::int64_t>(tokens.size()) == max_model_len) {
      result.finish_reason = FinishReason::kLength;
      return result;
    }
  }
}

// One life of an engine.
class Trace {
 public:
  explicit Trace(std::uint32_t seed)
      : random_(seed),
        setting_(random_setting(random_)),
        runner_(setting_.runner),
        core_(runner_, setting_.engine) {}

  void run() {
    const std::int64_t requests = random_.between(1, 30);
    const double arrival = random_.chance(0.3) ? 1 : 0.3;
    for (std::int64_t step = 0; arrived_ < requests || core_.has_work(); ++step) {
      ASSERT_LT(step, 40'000) << "everything ends";
      while (arrived_ < requests && random_.chance(arrival)) arrive();
      if (random_.chance(0.05)) abort_one();
      advance();
      check_books();
      if (testing::Test::HasFailure()) return;
    }
    check_end();
  }

  std::int64_t preemptions() { return core_.stats().preemptions; }
  std::int64_t hits() { return core_.stats().prefix_cache_hits; }
  std::int64_t accepted() { return core_.stats().accepted_tokens; }

 private:
  struct Life {
    GenerationRequest request;
    GenerationResult so_far;
    bool aborted = false, ended = false;
  };

  void arrive() {
    ++arrived_;
    const GenerationRequest request = random_request(random_, core_.options().max_model_len);
    ASSERT_EQ(core_.admission(request), Admission::kAccepted);
    auto sequence = core_.make_sequence(request);
    lives_[sequence->id].request = request;
    core_.add(std::move(sequence));
  }

  void abort_one() {
    if (lives_.empty()) return;
    auto life = std::next(lives_.begin(), random_.between(0, static_cast<std::int64_t>(lives_.size()) - 1));
    life->second.aborted |= !life->second.ended;
    core_.finish(life->first, FinishReason::kAbort);
    hear();
  }

  void advance() {
    const SchedulerState& state = core_.state();
    // Who must go on in this step: of the FCFS sequences the oldest of all.
    RequestId first = 0;
    if (setting_.engine.scheduling_policy == SchedulingPolicy::kFcfs)
      for (const auto& [id, life] : lives_)
        if (!life.ended && first == 0) first = id;
    StepPlan plan, again;
    schedule(state, setting_.engine.max_num_batched_tokens, plan);
    schedule(state, setting_.engine.max_num_batched_tokens, again);
    ASSERT_EQ(plan.tokens, again.tokens) << "planning changes nothing";
    ASSERT_EQ(plan.sequences.size(), again.sequences.size());
    ASSERT_EQ(plan.hits, again.hits);
    bool goes_on = first == 0;
    for (const PlannedSequence& planned : plan.sequences) goes_on |= planned.sequence->id == first;
    ASSERT_TRUE(goes_on) << "the oldest request goes on";
    ASSERT_EQ(core_.step(), plan.tokens);
    hear();
  }

  void hear() {
    for (const EngineCore::Output& each : core_.outputs()) {
      Life& life = lives_.at(each.output.id);
      ASSERT_FALSE(life.ended) << "nothing comes after the end";
      auto& tokens = life.so_far.token_ids;
      if (tokens.empty() && !each.output.token_ids.empty()) check_scores(life.request, each.output);
      tokens.insert(tokens.end(), each.output.token_ids.begin(), each.output.token_ids.end());
      if (!each.output.finish_reason) {
        ASSERT_EQ(each.sequence->computed + 1, each.sequence->known()) << "what is accepted is computed";
        continue;
      }
      life.ended = true;
      life.so_far.finish_reason = *each.output.finish_reason;
      life.so_far.stop_token_id = each.output.stop_token_id;
    }
    core_.clear_outputs();
  }

  static void check_scores(const GenerationRequest& request, const RequestOutput& output) {
    if (request.sampling.prompt_logprobs == SamplingParams::kNoLogprobs) {
      ASSERT_TRUE(output.prompt_logprobs.empty());
      return;
    }
    ASSERT_EQ(output.cached_tokens, 0) << "scores are computed, not cached";
    ASSERT_EQ(output.prompt_logprobs.size() + 1, request.prompt.size());
    for (std::size_t i = 1; i < request.prompt.size(); ++i)
      ASSERT_EQ(output.prompt_logprobs[i - 1].token.token, request.prompt[i]);
  }

  void check_books() {
    const SchedulerState& state = core_.state();
    const BlockPool& pool = state.blocks.pool();
    std::map<std::int32_t, std::int32_t> holders;
    ASSERT_LE(static_cast<std::int64_t>(state.running.size()), setting_.engine.max_num_seqs);
    for (const Sequence* sequence : state.running) {
      ASSERT_LT(sequence->computed, sequence->known());
      for (std::int64_t g = 0; g < state.blocks.groups(); ++g) {
        const auto& table = sequence->block_tables[static_cast<std::size_t>(g)];
        ASSERT_GE(static_cast<std::int64_t>(table.size()), state.blocks.blocks_for(sequence->computed));
        const std::int64_t window = setting_.runner.windows[static_cast<std::size_t>(g)];
        for (std::size_t i = 0; i < table.size(); ++i) {
          const std::int64_t last = static_cast<std::int64_t>(i + 1) * setting_.runner.block_size - 1;
          const bool visible = window == 0 || last > sequence->computed - window;
          ASSERT_EQ(table[i] != PrefixCache::kNone, visible)
              << "blocks behind a window are free, others held";
          if (visible) ++holders[table[i]];
        }
      }
    }
    for (const Sequence* sequence : state.waiting) ASSERT_TRUE(sequence->block_tables.front().empty());
    for (std::int32_t block = 1; block < pool.num_blocks(); ++block)
      ASSERT_EQ(pool.references(block), holders.contains(block) ? holders[block] : 0) << "block " << block;
    ASSERT_EQ(pool.used_blocks(), static_cast<std::int64_t>(holders.size()));
    ASSERT_TRUE(setting_.engine.scheduling_policy != SchedulingPolicy::kFcfs ||
                std::ranges::is_sorted(state.running, {}, &Sequence::id))
        << "first come, first served";
  }

  void check_end() {
    std::int64_t generated = 0;
    for (const auto& [id, life] : lives_) {
      ASSERT_TRUE(life.ended);
      const GenerationResult expected = alone(life.request, runner_, core_.options().max_model_len);
      const auto& tokens = life.so_far.token_ids;
      generated += static_cast<std::int64_t>(tokens.size());
      if (life.aborted) {
        ASSERT_EQ(life.so_far.finish_reason, FinishReason::kAbort);
        ASSERT_TRUE(tokens.size() < expected.token_ids.size() &&
                    std::equal(tokens.begin(), tokens.end(), expected.token_ids.begin()));
        continue;
      }
      ASSERT_EQ(tokens, expected.token_ids) << "request " << id;
      ASSERT_EQ(life.so_far.finish_reason, expected.finish_reason);
      ASSERT_EQ(life.so_far.stop_token_id, expected.stop_token_id);
    }
    const EngineStats& stats = core_.stats();
    ASSERT_EQ(stats.generation_tokens, generated);
    ASSERT_EQ(stats.used_blocks, 0) << "all blocks are free at the end";
    ASSERT_EQ(stats.running + stats.waiting + core_.waiting_tokens(), 0);
    ASSERT_TRUE(core_.reset_prefix_cache());
  }

  Random random_;
  Setting setting_;
  CheckingRunner runner_;
  EngineCore core_;
  std::map<RequestId, Life> lives_;
  std::int64_t arrived_ = 0;
};

TEST(Trace, ThousandsOfRandomOnes) {
  std::int64_t preemptions = 0, hits = 0, accepted = 0;
  for (std::uint32_t seed = 0; seed < 5000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Trace trace(seed);
    trace.run();
    if (HasFailure()) return;
    preemptions += trace.preemptions();
    hits += trace.hits();
    accepted += trace.accepted();
  }
  // That the traces go where it is hard.
  EXPECT_GT(preemptions, 1000);
  EXPECT_GT(hits, 10'000);
  EXPECT_GT(accepted, 10'000);
  RecordProperty("preemptions", std::to_string(preemptions));
  RecordProperty("prefix_cache_hits", std::to_string(hits));
  RecordProperty("accepted_guesses", std::to_string(accepted));
}

}  // namespace
}  // namespace bise
