// Measurements of a model under batches of sequences, on the step loop that serves requests (EngineCore):
// time to the first token, time a step of decoding takes, prompts a second, a whole load. Nothing stops
// before its length, no prefix is shared. One thread, which the backend belongs to.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "engine/decoder_runner.h"
#include "engine/engine_core.h"
#include "model/decoder.h"

namespace bise {

// A runner as it is, with the time that its caller has waited for results.
class TimedRunner final : public ModelRunner {
 public:
  explicit TimedRunner(ModelRunner& runner) : runner_(runner) {}
  std::int64_t vocab_size() const override { return runner_.vocab_size(); }
  std::int64_t num_blocks() const override { return runner_.num_blocks(); }
  std::int64_t block_size() const override { return runner_.block_size(); }
  const KvLayout& kv_layout() const override { return runner_.kv_layout(); }
  void launch(std::span<const StepSequence> sequences) override { runner_.launch(sequences); }
  std::span<const StepResult> results() override;
  double waited_seconds() const { return waited_seconds_; }

 private:
  ModelRunner& runner_;
  double waited_seconds_ = 0;
};

class BenchSteps {
 public:
  // A cache for `max_num_seqs` sequences of `sequence_tokens` each; one may have up to `max_model_len`.
  // `sampling` is every request's, but for max_tokens.
  BenchSteps(Decoder& decoder, ThreadPool& pool, std::int64_t max_num_seqs, std::int64_t sequence_tokens,
             std::int64_t max_model_len, DType kv_cache_dtype, const SamplingParams& sampling);

  std::int64_t kv_cache_bytes() const { return runner_.cache().bytes(); }

  // Seconds from a request of `prompt_tokens` to its first token.
  double first_token_seconds(std::int64_t prompt_tokens);
  // One step in which `sequences` sequences, each with a prompt of `prompt_tokens`, get a token: the median
  // of `steps` steps. The first steps, which record and warm up, are left out.
  struct DecodeStep {
    double seconds = 0;
    // Not spent waiting for results: in these a device that computes by itself has nothing to do.
    double host_seconds = 0;
  };
  DecodeStep decode_step(std::int64_t sequences, std::int64_t prompt_tokens, std::int64_t steps);
  struct Load {
    double seconds = 0;
    std::int64_t prompt_tokens = 0, output_tokens = 0;
  };
  // All requests at once.
  Load load(std::int64_t requests, std::int64_t prompt_tokens, std::int64_t output_tokens);

 private:
  void add(std::int64_t requests, std::int64_t prompt_tokens, std::int64_t output_tokens);
  void finish();

  DecoderRunner runner_;
  TimedRunner timed_runner_;
  EngineCore core_;
  SamplingParams sampling_;
  std::uint64_t seed_ = 0;  // of the next prompt
};

double median(std::vector<double> values);

}  // namespace bise
