// Generates the continuations of several prompts together: continuous batching over a paged cache. Requests
// are admitted in order while blocks for their whole length are free, so none is ever preempted; long
// prompts are computed in pieces beside the decoding of others. Belongs to the thread that uses the backend.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "engine/block_pool.h"
#include "engine/request.h"
#include "engine/sequence.h"
#include "model/decoder.h"
#include "model/step_batch.h"

namespace bise {

struct GeneratorOptions {
  std::int64_t max_num_seqs = 16;     // sequences that run at the same time
  std::int64_t max_model_len = 2048;  // prompt and output of one sequence
  // Tokens that the cache holds; 0 = max_num_seqs * max_model_len.
  std::int64_t cache_tokens = 0;
  DType kv_cache_dtype = DType::kBF16;
};

// A new token of request `request`. Not called for a stop token. Return false to stop the request.
using OnToken = std::function<bool(std::size_t request, std::int32_t token)>;

// Time by kind of step: a step that computes any prompt token counts as prefill.
struct GenerationTimes {
  std::int64_t prompt_tokens = 0, decode_tokens = 0;  // computed in steps of that kind
  double prefill_seconds = 0, decode_seconds = 0;
};

class Generator {
 public:
  // `pool` samples; decoder and pool outlive the generator. The decoder's max_tokens must be at least
  // max_num_seqs.
  Generator(Decoder& decoder, ThreadPool& pool, const GeneratorOptions& options = {});

  Admission admission(const GenerationRequest& request) const;

  // Runs all requests to their end; results in the requests' order. `cancel` (may be null) is read before
  // each step: when it is set, unfinished requests end with kAbort and what they have so far.
  std::vector<GenerationResult> generate(std::span<const GenerationRequest> requests,
                                         const OnToken& on_token = {},
                                         const std::atomic<bool>* cancel = nullptr);

  // Since the construction.
  const GenerationTimes& times() const { return times_; }
  MemoryUse memory_use() const { return decoder_.memory_use(cache_.get()); }

 private:
  // A step in four parts. schedule() fills batch_ and the rows to sample; false when nothing is left.
  bool schedule(std::span<const GenerationRequest> requests);
  void forward();
  void sample();
  void commit(const OnToken& on_token);

  // Tokens, prompt and output, that a sequence can have at all, and that this request can grow to.
  std::int64_t context() const;
  // Block tables, and so blocks for every block's tokens, that a sequence has.
  std::int64_t groups() const;
  std::int64_t longest(const GenerationRequest& request) const;
  void start(std::size_t request, const GenerationRequest& wanted);
  void add_to_step(Sequence& sequence);
  void finish(Sequence& sequence, FinishReason reason, std::int32_t stop_token_id);

  Decoder& decoder_;
  ThreadPool& pool_;
  GeneratorOptions options_;
  std::unique_ptr<KvCache> cache_;
  BlockPool blocks_;
  StepBatch batch_;
  std::vector<Sampler::Scratch> scratch_;  // one per thread
  GenerationTimes times_;

  // Of the generate() that runs.
  std::vector<GenerationResult> results_;
  std::vector<Sequence> running_;
  std::size_t next_request_ = 0;

  // Of the step that runs: the sequence of each row whose logits are wanted, and the tokens drawn.
  std::vector<std::int32_t> rows_, sampled_;
  std::vector<std::size_t> row_sequences_;
  bool step_has_prompt_ = false;
};

}  // namespace bise
