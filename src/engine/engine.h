// Serves requests on one model: continuous batching with chunked prefill over a paged KV cache with prefix
// reuse. One thread of its own, the engine thread, owns runner, cache and scheduler, and repeats
//   schedule; forward; sample; commit
// while there is work. The public methods may be called from any thread and never wait for a step.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "engine/log_softmax.h"
#include "engine/request.h"

namespace bise {

class ModelRunner;  // engine/model_runner.h

enum class SchedulingPolicy { kFcfs, kPriority };

// Names and meanings are vLLM's flags (spec/serving.md sections 3.1 to 3.3 and 4.1).
struct EngineOptions {
  std::int64_t max_num_seqs = 256;             // sequences in one step
  std::int64_t max_num_batched_tokens = 2048;  // tokens in one step
  std::int64_t max_model_len = 2048;           // prompt and output of one sequence
  bool enable_prefix_caching = true;
  bool enable_chunked_prefill = true;
  std::int64_t long_prefill_token_threshold = 0;  // 0: off
  SchedulingPolicy scheduling_policy = SchedulingPolicy::kFcfs;
  std::int64_t max_num_queued_reqs = 0;    // 0: any number
  std::int64_t max_num_queued_tokens = 0;  // 0: any number
  // n-gram speculation: 0 = off.
  std::int64_t num_speculative_tokens = 0, prompt_lookup_min = 5, prompt_lookup_max = 5;
};

// Log-probabilities at one position: of the token that stands there, its rank (1 = most likely) and the
// alternatives asked for, best first. Natural logarithms of the raw softmax.
struct PositionLogprobs {
  TokenLogprob token;
  std::int64_t rank = 0;
  std::vector<TokenLogprob> top;
};

// Seconds on the steady clock (engine_clock_seconds()).
struct RequestTimes {
  double queued = 0, scheduled = 0, first_token = 0, last_token = 0;
};

using RequestId = std::uint64_t;

// What one step gave to one request. The last one has a finish_reason.
struct RequestOutput {
  RequestId id = 0;
  std::vector<std::int32_t> token_ids;     // new ones, a stop token included; may be empty at the end
  std::vector<PositionLogprobs> logprobs;  // one a new token, when asked for
  // With the first output, when asked for: entry i - 1 is for prompt token i (the first has none).
  std::vector<PositionLogprobs> prompt_logprobs;
  std::optional<FinishReason> finish_reason;
  std::int32_t stop_token_id = -1;
  std::int64_t cached_tokens = 0;  // prompt tokens that the prefix cache served
  RequestTimes times;
};

// Sums since the start, and the state after the last step.
struct EngineStats {
  std::int64_t running = 0, waiting = 0;
  std::int64_t used_blocks = 0, total_blocks = 0, block_size = 0;  // total: that sequences can use
  std::int64_t prefix_cache_queries = 0, prefix_cache_hits = 0;    // tokens
  std::int64_t preemptions = 0, steps = 0;
  std::int64_t prompt_tokens = 0, prompt_tokens_cached = 0, generation_tokens = 0;
  std::int64_t drafts = 0, draft_tokens = 0, accepted_tokens = 0;
  std::vector<std::int64_t> accepted_per_position;
};

double engine_clock_seconds();

class Engine {
 public:
  // Called on the engine thread, once or more for each accepted request; it must not block (hand the output
  // on to another thread). The last call has a finish_reason. Not called after the engine's destructor.
  using Listener = std::function<void(RequestOutput&&)>;
  // Called on the engine thread after each step with the tokens it computed.
  using OnStep = std::function<void(std::int64_t tokens)>;

  Engine(std::unique_ptr<ModelRunner> runner, const EngineOptions& options, OnStep on_step = {});
  ~Engine();  // aborts what runs

  const EngineOptions& options() const;

  // What submit() would answer for the request itself (the queue limits aside).
  Admission admission(const GenerationRequest& request) const;
  // `id` is set when the request is accepted; `listener` may be called before submit() returns.
  Admission submit(GenerationRequest request, Listener listener, RequestId& id);
  // n sequences of the same request, seeded seed, seed + 1, ...; all or none. They share the prompt's blocks.
  Admission submit(const GenerationRequest& request, std::vector<Listener> listeners,
                   std::vector<RequestId>& ids);
  // Ends the request with `reason` within one step: kAbort, or kStop when the caller found a stop string.
  // Unknown or finished ids are ignored.
  void finish(RequestId id, FinishReason reason);

  EngineStats stats() const;
  // False once a step has thrown; every request then ended with kError.
  bool healthy() const;
  // Forgets all cached prefixes; false when requests still hold some.
  bool reset_prefix_cache();
  // Takes no more requests, waits up to `seconds` for those it has, aborts the rest, joins the thread.
  void stop(double seconds);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bise
