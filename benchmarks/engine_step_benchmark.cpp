// Host time of an engine step besides the model: schedule, bookkeeping, commit, handing out the tokens. The
// mock runner takes no time of its own but its draws, which RunnerAlone measures.
#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

#include "engine/engine_core.h"
#include "engine/mock_runner.h"

namespace bise {
namespace {

constexpr std::int64_t kSteps = 4000, kPromptTokens = 200, kBlockSize = 16;

MockRunnerOptions runner_options(std::int64_t sequences, std::vector<std::int64_t> windows) {
  const std::int64_t blocks =
      static_cast<std::int64_t>(windows.size()) * sequences * ((kPromptTokens + 6 * kSteps) / kBlockSize + 2);
  return {.num_blocks = 1 + blocks, .block_size = kBlockSize, .windows = std::move(windows)};
}

EngineOptions engine_options(std::int64_t sequences) {
  return {
      .max_num_seqs = sequences, .max_num_batched_tokens = 8192, .max_model_len = kPromptTokens + 7 * kSteps};
}

// Decoding sequences whose prompts are computed; `waiting` more than can run.
void submit(EngineCore& core, std::int64_t sequences, std::int64_t waiting) {
  for (std::int64_t i = 0; i < sequences + waiting; ++i) {
    GenerationRequest request;
    for (std::int64_t p = 0; p < kPromptTokens; ++p)
      request.prompt.push_back(static_cast<std::int32_t>((i * 7 + p * p) % 1000));
    request.sampling.max_tokens = 7 * kSteps;
    auto sequence = core.make_sequence(request);
    // As the server's: it moves the output on.
    sequence->listener = [kept = RequestOutput{}](RequestOutput&& output) mutable {
      kept = std::move(output);
    };
    core.add(std::move(sequence));
  }
  while (core.stats().running < sequences || core.step_had_prompt()) {
    core.step();
    core.clear_outputs();
  }
}

void decode(benchmark::State& state, const MockRunnerOptions& runner_options, const EngineOptions& options,
            std::int64_t waiting) {
  MockRunner runner(runner_options);
  EngineCore core(runner, options);
  submit(core, options.max_num_seqs, waiting);
  for (auto _ : state) {
    core.step();
    for (EngineCore::Output& each : core.outputs()) each.sequence->listener(std::move(each.output));
    core.clear_outputs();
  }
  const EngineStats& stats = core.stats();
  state.counters["tokens/step"] =
      static_cast<double>(stats.generation_tokens) / static_cast<double>(stats.steps);
}

void Decode(benchmark::State& state) {
  decode(state, runner_options(state.range(0), {0}), engine_options(state.range(0)), 0);
}
BENCHMARK(Decode)->Arg(1)->Arg(32)->Arg(256)->Arg(1024)->Iterations(kSteps)->Unit(benchmark::kMicrosecond);

void DecodeWithoutPrefixCache(benchmark::State& state) {
  EngineOptions options = engine_options(state.range(0));
  options.enable_prefix_caching = false;
  decode(state, runner_options(state.range(0), {0}), options, 0);
}
BENCHMARK(DecodeWithoutPrefixCache)->Arg(256)->Iterations(kSteps)->Unit(benchmark::kMicrosecond);

void DecodeWhileOthersWait(benchmark::State& state) {
  decode(state, runner_options(state.range(0), {0}), engine_options(state.range(0)), 1000);
}
BENCHMARK(DecodeWhileOthersWait)->Arg(256)->Iterations(kSteps)->Unit(benchmark::kMicrosecond);

void DecodeWithASlidingWindow(benchmark::State& state) {
  decode(state, runner_options(state.range(0), {0, 128}), engine_options(state.range(0)), 0);
}
BENCHMARK(DecodeWithASlidingWindow)->Arg(256)->Iterations(kSteps)->Unit(benchmark::kMicrosecond);

// The mock's tokens are as good as random: most guesses are wrong, the work of making them is the same.
void DecodeWithSpeculation(benchmark::State& state) {
  EngineOptions options = engine_options(state.range(0));
  options.num_speculative_tokens = 5;
  options.prompt_lookup_min = 2;
  decode(state, runner_options(state.range(0), {0}), options, 0);
}
BENCHMARK(DecodeWithSpeculation)->Arg(256)->Iterations(kSteps)->Unit(benchmark::kMicrosecond);

void RunnerAlone(benchmark::State& state) {
  MockRunner runner({});
  const std::vector<std::int32_t> history(kPromptTokens, 1);
  std::vector<StepSequence> sequences(
      static_cast<std::size_t>(state.range(0)),
      {.token_ids = std::span(history).last(1), .block_tables = {}, .sample = true, .history = history});
  for (auto _ : state) {
    runner.launch(sequences);
    benchmark::DoNotOptimize(runner.results());
  }
}
BENCHMARK(RunnerAlone)->Arg(256)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace bise

BENCHMARK_MAIN();
