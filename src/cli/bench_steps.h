// Measurements of a model under batches of sequences, on the step loop that serves requests (EngineCore):
// time to the first token, time a step of decoding takes, prompts a second, a whole load. Greedy, nothing
// stops before its length, no prefix is shared. One thread, which the backend belongs to.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "engine/decoder_runner.h"
#include "engine/engine_core.h"
#include "model/decoder.h"

namespace bise {

class BenchSteps {
 public:
  // A cache for `max_num_seqs` sequences of `sequence_tokens` each; one may have up to `max_model_len`.
  BenchSteps(Decoder& decoder, ThreadPool& pool, std::int64_t max_num_seqs, std::int64_t sequence_tokens,
             std::int64_t max_model_len, DType kv_cache_dtype);

  std::int64_t kv_cache_bytes() const { return runner_.cache().bytes(); }

  // Seconds from a request of `prompt_tokens` to its first token.
  double first_token_seconds(std::int64_t prompt_tokens);
  // Seconds of one step in which `sequences` sequences, each with a prompt of `prompt_tokens`, get a token:
  // the median of `steps` steps. The first steps, which record and warm up, are left out.
  double decode_step_seconds(std::int64_t sequences, std::int64_t prompt_tokens, std::int64_t steps);
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
  EngineCore core_;
  std::uint64_t seed_ = 0;  // of the next prompt
};

double median(std::vector<double> values);

}  // namespace bise
