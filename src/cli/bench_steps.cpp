#include "cli/bench_steps.h"

#include <algorithm>
#include <random>

#include "base/check.h"
#include "base/clock.h"

namespace bise {
namespace {

std::int64_t blocks_for(const Decoder& decoder, std::int64_t sequences, std::int64_t tokens) {
  const std::int64_t block_size = decoder.backend().preferred_block_size();
  const auto groups = static_cast<std::int64_t>(decoder.kv_layout().groups.size());
  return 1 + groups * sequences * ((tokens + block_size - 1) / block_size);
}

}  // namespace

double median(std::vector<double> values) {
  check(!values.empty(), "something was measured");
  std::ranges::sort(values);
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

std::span<const StepResult> TimedRunner::results() {
  const Stopwatch watch;
  const auto results = runner_.results();
  waited_seconds_ += watch.seconds();
  return results;
}

BenchSteps::BenchSteps(Decoder& decoder, ThreadPool& pool, std::int64_t max_num_seqs,
                       std::int64_t sequence_tokens, std::int64_t max_model_len, DType kv_cache_dtype,
                       const SamplingParams& sampling)
    : runner_(decoder, pool,
              {.num_blocks = blocks_for(decoder, max_num_seqs, sequence_tokens),
               .kv_cache_dtype = kv_cache_dtype,
               .max_num_seqs = max_num_seqs,
               .max_sequence_tokens = max_model_len}),
      timed_runner_(runner_),
      core_(timed_runner_, {.max_num_seqs = max_num_seqs,
                            .max_num_batched_tokens = decoder.limits().max_tokens,
                            .max_model_len = max_model_len,
                            .enable_prefix_caching = false}),
      sampling_(sampling) {}

void BenchSteps::add(std::int64_t requests, std::int64_t prompt_tokens, std::int64_t output_tokens) {
  std::mt19937_64 random(++seed_);
  GenerationRequest request;
  request.prompt.resize(static_cast<std::size_t>(prompt_tokens));
  request.sampling = sampling_;
  request.sampling.max_tokens = output_tokens;
  for (std::int64_t i = 0; i < requests; ++i) {
    for (std::int32_t& token : request.prompt)
      token = static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(runner_.vocab_size()));
    check(core_.admission(request) == Admission::kAccepted, "the request fits the model and the cache");
    core_.add(core_.make_sequence(request));
  }
}

void BenchSteps::finish() {
  core_.finish_all(FinishReason::kAbort);
  core_.clear_outputs();
}

double BenchSteps::first_token_seconds(std::int64_t prompt_tokens) {
  add(1, prompt_tokens, 1);
  const Stopwatch watch;
  while (core_.has_work()) core_.step();
  const double seconds = watch.seconds();
  finish();
  return seconds;
}

BenchSteps::DecodeStep BenchSteps::decode_step(std::int64_t sequences, std::int64_t prompt_tokens,
                                               std::int64_t steps) {
  constexpr std::int64_t kWarmUp = 4;
  add(sequences, prompt_tokens, 1024);
  const auto step = [&] {
    const double waited = timed_runner_.waited_seconds();
    const Stopwatch watch;
    core_.step();
    core_.clear_outputs();
    const double seconds = watch.seconds();
    return DecodeStep{seconds, seconds - (timed_runner_.waited_seconds() - waited)};
  };
  do {
    step();
  } while (core_.step_had_prompt() || !core_.state().waiting.empty());
  for (std::int64_t i = 0; i < kWarmUp; ++i) step();
  std::vector<double> seconds, host_seconds;
  for (std::int64_t i = 0; i < steps; ++i) {
    const DecodeStep each = step();
    seconds.push_back(each.seconds);
    host_seconds.push_back(each.host_seconds);
  }
  check(static_cast<std::int64_t>(core_.state().running.size()) == sequences,
        "all sequences were in each step");
  finish();
  return {median(std::move(seconds)), median(std::move(host_seconds))};
}

BenchSteps::Load BenchSteps::load(std::int64_t requests, std::int64_t prompt_tokens,
                                  std::int64_t output_tokens) {
  const Stopwatch watch;
  add(requests, prompt_tokens, output_tokens);
  while (core_.has_work()) {
    core_.step();
    core_.clear_outputs();
  }
  const Load load{watch.seconds(), requests * prompt_tokens, requests * output_tokens};
  finish();
  return load;
}

}  // namespace bise
