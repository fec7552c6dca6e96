#include "engine/decoder_runner.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <vector>

#include "engine/log_softmax.h"
#include "tests/model/test_backends.h"
#include "tests/model/tiny_model.h"

namespace bise {
namespace {

// One sequence as the engine keeps it: enough to make steps of.
struct Running {
  std::vector<std::int32_t> tokens;  // prompt and output
  std::int64_t prompt_tokens, computed = 0;
  std::vector<std::vector<std::int32_t>> tables;
  std::vector<std::span<const std::int32_t>> views = {};
  std::vector<std::int32_t> input = {};  // of the step
  Sampler sampler;

  Running(const std::vector<std::int32_t>& prompt, const SamplingParams& params, const DecoderRunner& runner,
          std::int32_t first_block, std::int64_t blocks)
      : tokens(prompt),
        prompt_tokens(static_cast<std::int64_t>(prompt.size())),
        sampler(params, 99, prompt, runner.vocab_size()) {
    for (std::size_t g = 0; g < runner.kv_layout().groups.size(); ++g) {
      tables.emplace_back();
      for (std::int64_t b = 0; b < blocks; ++b) tables.back().push_back(first_block++);
    }
    for (const auto& table : tables) views.emplace_back(table);
  }

  // The next `count` tokens, with guesses after them.
  StepSequence step(std::int64_t count, const std::vector<std::int32_t>& drafts = {}) {
    const auto known = static_cast<std::int64_t>(tokens.size());
    count = std::min(count, known - computed);
    input.assign(tokens.begin() + computed, tokens.begin() + computed + count);
    const bool sample = computed + count == known;
    if (sample) input.insert(input.end(), drafts.begin(), drafts.end());
    const std::int64_t score = sampler.params().prompt_logprobs == SamplingParams::kNoLogprobs
                                   ? 0
                                   : std::clamp<std::int64_t>(prompt_tokens - 1 - computed, 0, count);
    const StepSequence result{.token_ids = input,
                              .computed = computed,
                              .drafts = sample ? static_cast<std::int64_t>(drafts.size()) : 0,
                              .block_tables = views,
                              .sample = sample,
                              .history = tokens,
                              .prompt_tokens = prompt_tokens,
                              .sampler = &sampler,
                              .score_rows = score};
    computed += count;
    return result;
  }
  void commit(const StepResult& result) {
    tokens.insert(tokens.end(), result.token_ids.begin(), result.token_ids.end());
    if (!result.token_ids.empty()) computed = static_cast<std::int64_t>(tokens.size()) - 1;
  }
  std::vector<std::int32_t> output() const { return {tokens.begin() + prompt_tokens, tokens.end()}; }
};

struct TinySetup {
  ThreadPool pool{2};
  std::unique_ptr<Backend> backend = make_cpu_backend(pool, available_isas().back());
  TinyModel model;
  Decoder decoder;
  explicit TinySetup(std::int64_t logit_rows = 3)
      : model(tiny_model(*backend, config())),
        decoder(*backend, model.config, model.weights, {.max_tokens = 64, .max_logit_rows = logit_rows}) {}
  static ModelConfig config() {
    ModelConfig config = tiny_config();
    config.sliding_window = {0, 7};  // two groups
    return config;
  }
  DecoderRunner runner(LogprobsMode mode = LogprobsMode::kRawLogprobs) {
    return {decoder,
            pool,
            {.num_blocks = 40,
             .max_num_seqs = 8,
             .max_sequence_tokens = 128,
             .num_speculative_tokens = 4,
             .logprobs_mode = mode}};
  }
};

// One token at a time, from the logits of the plain decoder: the definition.
std::vector<std::int32_t> expected_output(Decoder& decoder, const std::vector<std::int32_t>& prompt,
                                          const SamplingParams& params, int count) {
  Sampler sampler(params, 99, prompt, decoder.config().vocab_size);
  Sampler::Scratch scratch(decoder.config().vocab_size);
  std::vector<std::int32_t> tokens = prompt, output;
  for (int i = 0; i < count; ++i) {
    const auto logits = all_logits(decoder, tokens, 50);
    const std::int32_t token = sampler.sample(
        std::span(logits).last(static_cast<std::size_t>(decoder.config().vocab_size)), scratch);
    sampler.accept(token);
    tokens.push_back(token);
    output.push_back(token);
  }
  return output;
}

const std::vector<SamplingParams>& kinds_of_sampling() {
  static const std::vector<SamplingParams> kinds = {
      {.temperature = 0},
      {.temperature = 1, .seed = 5},
      {.temperature = 0.8, .top_p = 0.9, .top_k = 20, .seed = 6},
      {.temperature = 1, .repetition_penalty = 1.3, .frequency_penalty = 0.5, .seed = 7},
      {.temperature = 1, .seed = 8, .bad_words = {{3}, {5, 6}}},
  };
  return kinds;
}

// Sequences of every kind in the same steps, prompts in pieces, more rows than logits() takes at once.
TEST(DecoderRunner, DrawsWhatThePlainDecoderGives) {
  TinySetup setup;
  DecoderRunner runner = setup.runner();
  std::vector<std::unique_ptr<Running>> sequences;
  std::vector<std::vector<std::int32_t>> expected;
  for (std::size_t i = 0; i < kinds_of_sampling().size(); ++i) {
    const auto prompt =
        random_tokens(5 + 4 * static_cast<std::int64_t>(i), 320, static_cast<std::uint32_t>(i));
    expected.push_back(expected_output(setup.decoder, prompt, kinds_of_sampling()[i], 12));
    sequences.push_back(std::make_unique<Running>(prompt, kinds_of_sampling()[i], runner,
                                                  static_cast<std::int32_t>(4 * i), 2));
  }
  for (int step = 0; step < 20; ++step) {
    std::vector<StepSequence> work;
    for (auto& each : sequences) work.push_back(each->step(7));
    runner.launch(work);
    const auto results = runner.results();
    EXPECT_EQ(runner.results().data(), results.data());
    for (std::size_t i = 0; i < sequences.size(); ++i) sequences[i]->commit(results[i]);
  }
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    auto output = sequences[i]->output();
    ASSERT_GE(output.size(), 12u);
    output.resize(12);
    EXPECT_EQ(output, expected[i]) << "kind " << i;
  }
}

// Right, wrong and half right guesses: the tokens are those without speculation, and right guesses save
// steps.
TEST(DecoderRunner, SpeculationChangesNothingButTheSteps) {
  TinySetup setup;
  DecoderRunner runner = setup.runner();
  const auto prompt = random_tokens(20, 320, 3);
  for (std::size_t kind = 0; kind < kinds_of_sampling().size(); ++kind) {
    const auto expected = expected_output(setup.decoder, prompt, kinds_of_sampling()[kind], 20);
    for (const int right : {0, 1, 3, 4}) {  // guesses that are right, of 4
      SCOPED_TRACE(testing::Message() << "kind " << kind << ", " << right << " right");
      Running running(prompt, kinds_of_sampling()[kind], runner, 0, 2);
      int steps = 0;
      while (running.output().size() < 12) {
        const auto done = running.output().size();
        std::vector<std::int32_t> drafts;
        for (std::size_t i = 0; i < 4; ++i)
          drafts.push_back(static_cast<int>(i) < right ? expected[done + i] : (expected[done + i] + 1) % 320);
        const std::vector<StepSequence> work = {running.step(50, drafts)};
        runner.launch(work);
        EXPECT_EQ(runner.results()[0].token_ids.size(), static_cast<std::size_t>(right + 1));
        running.commit(runner.results()[0]);
        ++steps;
      }
      auto output = running.output();
      output.resize(12);
      EXPECT_EQ(output, std::vector<std::int32_t>(expected.begin(), expected.begin() + 12));
      EXPECT_EQ(steps, (12 + right) / (right + 1));
    }
  }
}

TEST(DecoderRunner, ReportsLogprobsOfDrawnAndPromptTokens) {
  TinySetup setup;
  DecoderRunner runner = setup.runner();
  const auto prompt = random_tokens(23, 320, 4);
  SamplingParams params{.temperature = 0.7, .top_k = 5, .repetition_penalty = 1.5, .seed = 1};
  params.logprobs = 3;
  params.prompt_logprobs = 2;
  params.logprob_token_ids = {17};
  Running running(prompt, params, runner, 0, 2), other(prompt, {.temperature = 0}, runner, 4, 2);
  std::vector<PositionLogprobs> scored, drawn;
  while (running.output().size() < 6) {
    const std::vector<StepSequence> work = {running.step(9), other.step(4)};
    runner.launch(work);
    const auto results = runner.results();
    scored.insert(scored.end(), results[0].prompt_logprobs.begin(), results[0].prompt_logprobs.end());
    drawn.insert(drawn.end(), results[0].logprobs.begin(), results[0].logprobs.end());
    EXPECT_TRUE(results[1].logprobs.empty());
    EXPECT_TRUE(results[1].prompt_logprobs.empty());
    running.commit(results[0]);
    other.commit(results[1]);
  }
  ASSERT_EQ(scored.size(), prompt.size() - 1);
  ASSERT_EQ(drawn.size(), running.output().size());
  const auto logits = all_logits(setup.decoder, running.tokens, 64);
  const auto row = [&](std::size_t i) { return std::span(logits).subspan(i * 320, 320); };
  const auto expect_scored = [&](const PositionLogprobs& actual, std::size_t i, std::size_t top) {
    SCOPED_TRACE(testing::Message() << "position " << i);
    const double normalizer = log_sum_exp(row(i));
    const std::int32_t token = running.tokens[i + 1];
    EXPECT_EQ(actual.token.token, token);
    EXPECT_NEAR(actual.token.logprob,
                static_cast<double>(row(i)[static_cast<std::size_t>(token)]) - normalizer, 1e-9);
    auto expected = top_logprobs(row(i), normalizer, static_cast<std::int64_t>(top));
    ASSERT_GE(actual.top.size(), top);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), actual.top.begin()));
  };
  for (std::size_t i = 0; i < scored.size(); ++i) {
    expect_scored(scored[i], i, 2);
    EXPECT_EQ(scored[i].top.size(), 2u);
  }
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    expect_scored(drawn[i], prompt.size() - 1 + i, 3);
    EXPECT_TRUE(std::ranges::any_of(drawn[i].top, [](const auto& each) { return each.token == 17; }));
  }
}

TEST(DecoderRunner, LogprobsModes) {
  TinySetup setup;
  const auto prompt = random_tokens(9, 320, 4);
  SamplingParams params{.temperature = 2, .top_k = 2, .seed = 1};
  params.logprobs = 3;
  const auto all = all_logits(setup.decoder, prompt, 64);
  const auto logits = std::span(all).last(320);
  const auto best = top_logprobs(logits, 0, 3);
  const double normalizer = log_sum_exp(logits);
  for (const LogprobsMode mode : {LogprobsMode::kRawLogprobs, LogprobsMode::kProcessedLogprobs,
                                  LogprobsMode::kRawLogits, LogprobsMode::kProcessedLogits}) {
    SCOPED_TRACE(logprobs_mode_name(mode));
    DecoderRunner runner = setup.runner(mode);
    Running running(prompt, params, runner, 0, 2);
    const std::vector<StepSequence> work = {running.step(64)};
    runner.launch(work);
    const PositionLogprobs& actual = runner.results()[0].logprobs.at(0);
    ASSERT_EQ(actual.top.size(), 3u);
    // Two are left, at half their logits.
    const double first = best[0].logprob / 2;
    const double second = best[1].logprob / 2;
    const double sum = first + std::log1p(std::exp(second - first));
    const double offset = mode == LogprobsMode::kRawLogprobs ? normalizer : 0;
    const std::vector<double> expected =
        !is_processed(mode) ? std::vector<double>{best[0].logprob - offset, best[1].logprob - offset}
        : is_logits(mode)   ? std::vector<double>{first, second}
                            : std::vector<double>{first - sum, second - sum};
    for (std::size_t i = 0; i < 2; ++i) {
      EXPECT_EQ(actual.top[i].token, best[i].token);
      EXPECT_NEAR(actual.top[i].logprob, expected[i], 1e-5);
    }
    EXPECT_EQ(std::isinf(actual.top[2].logprob), is_processed(mode));
  }
}

// A sequence whose numbers overflow fails alone; its blocks serve the next one.
TEST(DecoderRunner, LogitsThatAreNoNumbersFailTheirSequence) {
  TinySetup setup;
  std::vector<float> embedding(320 * 128);
  for (std::size_t i = 0; i < embedding.size(); ++i) embedding[i] = std::sin(static_cast<float>(i));
  const std::int32_t broken = 319;
  std::fill_n(embedding.end() - 128, 128, std::numeric_limits<float>::infinity());
  setup.model.weights.embed_tokens =
      setup.backend->prepare_tensor(from_float(embedding, DType::kBF16, {320, 128}));
  Decoder decoder(*setup.backend, setup.model.config, setup.model.weights,
                  {.max_tokens = 64, .max_logit_rows = 3});
  DecoderRunner runner(decoder, setup.pool,
                       {.num_blocks = 40, .max_num_seqs = 8, .max_sequence_tokens = 128});
  std::vector<std::int32_t> prompt = random_tokens(12, 319, 4);
  const SamplingParams greedy{.temperature = 0};
  const auto expected = expected_output(decoder, prompt, greedy, 1);
  std::vector<std::int32_t> bad_prompt = random_tokens(30, 319, 5);
  bad_prompt[3] = broken;
  Running bad(bad_prompt, greedy, runner, 0, 2), good(prompt, greedy, runner, 4, 2),
      next(prompt, greedy, runner, 0, 2);
  const std::vector<StepSequence> both = {bad.step(64), good.step(64)};
  runner.launch(both);
  EXPECT_TRUE(runner.results()[0].failed);
  EXPECT_FALSE(runner.results()[1].failed);
  EXPECT_EQ(runner.results()[1].token_ids, expected);
  const std::vector<StepSequence> again = {next.step(64)};
  runner.launch(again);
  EXPECT_FALSE(runner.results()[0].failed);
  EXPECT_EQ(runner.results()[0].token_ids, expected);
}

}  // namespace
}  // namespace bise
