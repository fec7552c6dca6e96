// Times of drawing one token and of its log-probabilities, from a row of a vocabulary's size.
#include <benchmark/benchmark.h>

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/logprobs.h"
#include "engine/sampler.h"

namespace bise {
namespace {

// Like a language model's: a few likely tokens above a wide normal distribution.
std::vector<float> logits_of(std::int64_t vocabulary) {
  std::mt19937 engine(1);
  std::normal_distribution<float> normal(0, 2.5f);
  std::vector<float> logits(static_cast<std::size_t>(vocabulary));
  for (float& logit : logits) logit = normal(engine);
  for (int i = 0; i < 20; ++i) logits[engine() % logits.size()] = 18 - 0.4f * static_cast<float>(i);
  return logits;
}

class HalfConstraint final : public TokenConstraint {
 public:
  std::unique_ptr<TokenConstraint> clone() const override { return std::make_unique<HalfConstraint>(); }
  void fill_mask(std::span<std::uint32_t> bits) override {
    for (std::uint32_t& word : bits) word = 0x55555555u;
  }
  bool accept(std::int32_t) override { return true; }
  void rollback(std::int64_t) override {}
};

void sample(benchmark::State& state, const SamplingParams& params, bool penalized) {
  const std::vector<float> logits = logits_of(state.range(0));
  Sampler sampler(params, 1, {}, state.range(0));
  Sampler::Scratch scratch(state.range(0));
  for (std::int32_t token = 0; penalized && token < 1000; ++token) sampler.accept(token * 31);
  // Steps of many rows: the next one is not in the first-level cache.
  std::vector<std::vector<float>> rows(8, logits);
  std::size_t row = 0;
  for (auto _ : state) {
    const std::int32_t token = sampler.sample(rows[row++ % rows.size()], scratch);
    benchmark::DoNotOptimize(token);
    if (!penalized) sampler.accept(token);
  }
}

void logprobs(benchmark::State& state, std::int64_t count) {
  const std::vector<float> logits = logits_of(state.range(0));
  LogprobsScratch scratch(state.range(0));
  PositionLogprobs result;
  for (auto _ : state) position_logprobs(logits, 5, {count, {}, false}, scratch, result);
}

void add(benchmark::internal::Benchmark* one) {
  one->Arg(49152)->Arg(131072)->ArgName("vocabulary")->Unit(benchmark::kMicrosecond);
}

void register_all() {
  struct Way {
    const char* name;
    SamplingParams params;
    bool penalized = false;
  };
  const std::vector<Way> ways = {
      {"greedy", {.temperature = 0}},
      {"temperature", {.temperature = 0.8}},
      {"top_k50_top_p0.9", {.temperature = 0.8, .top_p = 0.9, .top_k = 50}},
      {"top_p0.9", {.temperature = 0.8, .top_p = 0.9}},
      {"hot_top_p0.95", {.temperature = 1.8, .top_p = 0.95}},
      {"min_p0.05", {.temperature = 0.8, .min_p = 0.05}},
      {"penalties", {.temperature = 0.8, .repetition_penalty = 1.1, .presence_penalty = 0.5}, true},
      {"constraint", {.temperature = 0.8, .constraint = std::make_shared<HalfConstraint>()}},
  };
  for (const Way& way : ways)
    add(benchmark::RegisterBenchmark((std::string("sample/") + way.name).c_str(), sample, way.params,
                                     way.penalized));
  for (const std::int64_t count : {0, 5, 20})
    add(benchmark::RegisterBenchmark(("logprobs/" + std::to_string(count)).c_str(), logprobs, count));
}

}  // namespace
}  // namespace bise

int main(int argc, char** argv) {
  bise::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
