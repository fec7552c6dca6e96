// Generates the continuations of several prompts together, on the caller's thread: the engine's step loop
// (engine_core.h) with a decoder, without a thread of its own. Belongs to the thread that uses the backend.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "engine/decoder_runner.h"
#include "engine/engine_core.h"
#include "engine/request.h"
#include "model/decoder.h"

namespace bise {

struct GeneratorOptions {
  std::int64_t max_num_seqs = 16;     // sequences that run at the same time
  std::int64_t max_model_len = 2048;  // prompt and output of one sequence
  // Tokens that the cache holds; 0 = max_num_seqs * max_model_len.
  std::int64_t cache_tokens = 0;
  DType kv_cache_dtype = DType::kBF16;
  // Whether prompts that begin like earlier ones, of any generate(), are computed only from there on.
  bool enable_prefix_caching = true;
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

  Admission admission(const GenerationRequest& request) const { return core_.admission(request); }

  // Runs all requests to their end; results in the requests' order. `cancel` (may be null) is read before
  // each step: when it is set, unfinished requests end with kAbort and what they have so far.
  std::vector<GenerationResult> generate(std::span<const GenerationRequest> requests,
                                         const OnToken& on_token = {},
                                         const std::atomic<bool>* cancel = nullptr);

  // Since the construction.
  const GenerationTimes& times() const { return times_; }
  MemoryUse memory_use() const { return decoder_.memory_use(&runner_.cache()); }

 private:
  void add(std::span<const GenerationRequest> requests);
  void step();
  void deliver(const OnToken& on_token);

  Decoder& decoder_;
  DecoderRunner runner_;
  EngineCore core_;
  GenerationTimes times_;

  // Of the generate() that runs.
  std::vector<GenerationResult> results_;
  std::vector<std::pair<RequestId, std::size_t>> requests_;  // of the sequences in the core
  std::size_t next_request_ = 0;
};

}  // namespace bise
