#include "engine/generator.h"

#include <algorithm>

#include "base/check.h"
#include "base/clock.h"

namespace bise {
namespace {

// One more than the sequences need: the null block.
std::int64_t cache_blocks(const GeneratorOptions& options, const Decoder& decoder) {
  const std::int64_t block_size = decoder.backend().preferred_block_size();
  const auto blocks_for = [&](std::int64_t tokens) { return (tokens + block_size - 1) / block_size; };
  const std::int64_t blocks = options.cache_tokens == 0
                                  ? options.max_num_seqs * blocks_for(options.max_model_len)
                                  : blocks_for(options.cache_tokens);
  return 1 + blocks * static_cast<std::int64_t>(decoder.kv_layout().groups.size());
}

EngineOptions engine_options(const GeneratorOptions& options, const Decoder& decoder) {
  check(decoder.limits().max_tokens >= options.max_num_seqs, "a step has room for every sequence");
  return {.max_num_seqs = options.max_num_seqs,
          .max_num_batched_tokens = decoder.limits().max_tokens,
          .max_model_len = options.max_model_len,
          .enable_prefix_caching = options.enable_prefix_caching};
}

}  // namespace

Generator::Generator(Decoder& decoder, ThreadPool& pool, const GeneratorOptions& options)
    : decoder_(decoder),
      runner_(decoder, pool,
              {.num_blocks = cache_blocks(options, decoder),
               .kv_cache_dtype = options.kv_cache_dtype,
               .max_num_seqs = options.max_num_seqs,
               .max_sequence_tokens = options.max_model_len}),
      core_(runner_, engine_options(options, decoder)) {
  requests_.reserve(static_cast<std::size_t>(options.max_num_seqs));
}

std::vector<GenerationResult> Generator::generate(std::span<const GenerationRequest> requests,
                                                  const OnToken& on_token, const std::atomic<bool>* cancel) {
  results_.assign(requests.size(), {});
  requests_.clear();
  next_request_ = 0;
  for (;;) {
    add(requests);
    if (!core_.has_work()) break;
    if (cancel && cancel->load(std::memory_order_relaxed)) {
      core_.finish_all(FinishReason::kAbort);
      core_.clear_outputs();
      break;
    }
    step();
    deliver(on_token);
  }
  // Those that never began.
  for (; next_request_ < requests.size(); ++next_request_)
    results_[next_request_].admission = admission(requests[next_request_]);
  return std::move(results_);
}

// No more than can run: a sequence takes memory.
void Generator::add(std::span<const GenerationRequest> requests) {
  while (next_request_ < requests.size() && requests_.size() < requests_.capacity()) {
    const std::size_t index = next_request_++;
    results_[index].admission = admission(requests[index]);
    if (results_[index].admission != Admission::kAccepted) continue;
    auto sequence = core_.make_sequence(requests[index]);
    results_[index].token_ids.reserve(
        std::min<std::size_t>(static_cast<std::size_t>(sequence->max_total - sequence->prompt_tokens), 4096));
    requests_.emplace_back(sequence->id, index);
    core_.add(std::move(sequence));
  }
}

void Generator::step() {
  const Stopwatch watch;
  const std::int64_t tokens = core_.step();
  const bool prompt = core_.step_had_prompt();
  (prompt ? times_.prefill_seconds : times_.decode_seconds) += watch.seconds();
  (prompt ? times_.prompt_tokens : times_.decode_tokens) += tokens;
}

void Generator::deliver(const OnToken& on_token) {
  // finish() adds outputs, without tokens.
  for (std::size_t i = 0; i < core_.outputs().size(); ++i) {
    const RequestOutput& output = core_.outputs()[i].output;
    const RequestId id = output.id;
    const auto entry = std::ranges::find(requests_, id, &std::pair<RequestId, std::size_t>::first);
    const std::size_t index = entry->second;
    GenerationResult& result = results_[index];
    result.token_ids.insert(result.token_ids.end(), output.token_ids.begin(), output.token_ids.end());
    const bool stop_token = output.stop_token_id >= 0;
    if (output.finish_reason) {
      result.finish_reason = *output.finish_reason;
      result.stop_token_id = output.stop_token_id;
      requests_.erase(entry);
    }
    if (!on_token || output.token_ids.empty() || stop_token) continue;
    if (!on_token(index, output.token_ids.back())) {
      result.finish_reason = FinishReason::kStop;
      core_.finish(id, FinishReason::kStop);
    }
  }
  core_.clear_outputs();
}

}  // namespace bise
