#include "engine/generator.h"

#include <algorithm>
#include <functional>

#include "base/check.h"
#include "base/clock.h"
#include "model/step_batch.h"

namespace bise {
namespace {

// Runs steps on a decoder; draws on the pool's threads.
class StepDecoder final : public ModelRunner {
 public:
  StepDecoder(Decoder& decoder, ThreadPool& pool, KvCache& cache, std::int64_t max_num_seqs,
              std::int64_t blocks_per_sequence)
      : decoder_(decoder),
        pool_(pool),
        cache_(cache),
        batch_(decoder.limits().max_tokens, max_num_seqs, blocks_per_sequence,
               static_cast<std::int64_t>(decoder.kv_layout().groups.size())),
        scratch_(static_cast<std::size_t>(pool.threads()), Sampler::Scratch(decoder.config().vocab_size)),
        results_(static_cast<std::size_t>(max_num_seqs)) {
    rows_.reserve(results_.size());
    row_sequences_.reserve(results_.size());
  }

  std::int64_t vocab_size() const override { return decoder_.config().vocab_size; }
  std::int64_t num_blocks() const override { return cache_.shape().num_blocks; }
  std::int64_t block_size() const override { return cache_.shape().block_size; }
  const KvLayout& kv_layout() const override { return decoder_.kv_layout(); }

  void launch(std::span<const StepSequence> sequences) override {
    sequences_ = sequences;
    batch_.clear();
    rows_.clear();
    row_sequences_.clear();
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      batch_.add(sequences[i].token_ids, sequences[i].computed, sequences[i].block_tables);
      results_[i].token_ids.clear();
      if (!sequences[i].sample) continue;
      rows_.push_back(batch_.last_row());
      row_sequences_.push_back(i);
    }
    decoder_.forward(batch_.view(), cache_);
  }

  std::span<const StepResult> results() override {
    const auto vocabulary = static_cast<std::size_t>(decoder_.config().vocab_size);
    const auto most = static_cast<std::size_t>(decoder_.limits().max_logit_rows);
    for (std::size_t first = 0; first < rows_.size(); first += most) {
      const std::size_t count = std::min(most, rows_.size() - first);
      const std::span<const float> logits = decoder_.logits(std::span(rows_).subspan(first, count));
      const auto draw = [&](std::int64_t begin, std::int64_t end, int thread) {
        for (auto row = static_cast<std::size_t>(begin); row < static_cast<std::size_t>(end); ++row)
          sample(row_sequences_[first + row], logits.subspan(row * vocabulary, vocabulary),
                 scratch_[static_cast<std::size_t>(thread)]);
      };
      if (count == 1)
        draw(0, 1, 0);
      else
        pool_.parallel_for(static_cast<std::int64_t>(count), 1,
                           std::ref(draw));  // by reference: no allocation
    }
    return std::span(results_).first(sequences_.size());
  }

 private:
  void sample(std::size_t index, std::span<const float> logits, Sampler::Scratch& scratch) {
    const StepSequence& sequence = sequences_[index];
    const auto position = static_cast<std::int64_t>(sequence.history.size());
    const std::int32_t token =
        sequence.sampler->sample(logits, position, position - sequence.prompt_tokens, scratch);
    sequence.sampler->accept(token);
    results_[index].token_ids.push_back(token);
  }

  Decoder& decoder_;
  ThreadPool& pool_;
  KvCache& cache_;
  StepBatch batch_;
  std::vector<Sampler::Scratch> scratch_;  // one per thread
  std::span<const StepSequence> sequences_;
  std::vector<StepResult> results_;
  std::vector<std::int32_t> rows_;  // whose logits are wanted, and their sequences
  std::vector<std::size_t> row_sequences_;
};

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
      cache_(decoder.make_kv_cache(cache_blocks(options, decoder), options.kv_cache_dtype)) {
  const std::int64_t block_size = cache_->shape().block_size;
  runner_ = std::make_unique<StepDecoder>(decoder, pool, *cache_, options.max_num_seqs,
                                          (options.max_model_len + block_size - 1) / block_size);
  core_ = std::make_unique<EngineCore>(*runner_, engine_options(options, decoder));
  requests_.reserve(static_cast<std::size_t>(options.max_num_seqs));
}

Generator::~Generator() = default;

std::vector<GenerationResult> Generator::generate(std::span<const GenerationRequest> requests,
                                                  const OnToken& on_token, const std::atomic<bool>* cancel) {
  results_.assign(requests.size(), {});
  requests_.clear();
  next_request_ = 0;
  for (;;) {
    add(requests);
    if (!core_->has_work()) break;
    if (cancel && cancel->load(std::memory_order_relaxed)) {
      core_->finish_all(FinishReason::kAbort);
      core_->clear_outputs();
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
    auto sequence = core_->make_sequence(requests[index]);
    results_[index].token_ids.reserve(
        std::min<std::size_t>(static_cast<std::size_t>(sequence->max_total - sequence->prompt_tokens), 4096));
    requests_.emplace_back(sequence->id, index);
    core_->add(std::move(sequence));
  }
}

void Generator::step() {
  const Stopwatch watch;
  const std::int64_t tokens = core_->step();
  const bool prompt = core_->step_had_prompt();
  (prompt ? times_.prefill_seconds : times_.decode_seconds) += watch.seconds();
  (prompt ? times_.prompt_tokens : times_.decode_tokens) += tokens;
}

void Generator::deliver(const OnToken& on_token) {
  // finish() adds outputs, without tokens.
  for (std::size_t i = 0; i < core_->outputs().size(); ++i) {
    const RequestOutput& output = core_->outputs()[i].output;
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
      core_->finish(id, FinishReason::kStop);
    }
  }
  core_->clear_outputs();
}

}  // namespace bise
