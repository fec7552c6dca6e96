#include "engine/generator.h"

#include <algorithm>
#include <functional>
#include <random>

#include "base/check.h"
#include "base/clock.h"

namespace bise {
namespace {

std::int64_t cache_blocks(const GeneratorOptions& options, std::int64_t block_size) {
  const std::int64_t per_sequence = (options.max_model_len + block_size - 1) / block_size;
  if (options.cache_tokens == 0) return options.max_num_seqs * per_sequence;
  return (options.cache_tokens + block_size - 1) / block_size;
}

std::uint64_t random_seed() {
  std::random_device device;
  return (static_cast<std::uint64_t>(device()) << 32) | device();
}

}  // namespace

Generator::Generator(Decoder& decoder, ThreadPool& pool, const GeneratorOptions& options)
    : decoder_(decoder),
      pool_(pool),
      options_(options),
      cache_(decoder.make_kv_cache(groups() * cache_blocks(options, decoder.backend().preferred_block_size()),
                                   options.kv_cache_dtype)),
      blocks_(cache_->shape().num_blocks, cache_->shape().block_size),
      batch_(decoder.limits().max_tokens, options.max_num_seqs, blocks_.blocks_for(options.max_model_len),
             groups()),
      scratch_(static_cast<std::size_t>(pool.threads()), Sampler::Scratch(decoder.config().vocab_size)) {
  check(decoder.limits().max_tokens >= options.max_num_seqs, "a step has room for every sequence");
  const auto sequences = static_cast<std::size_t>(options.max_num_seqs);
  running_.reserve(sequences);
  rows_.reserve(sequences);
  sampled_.reserve(sequences);
  row_sequences_.reserve(sequences);
}

Admission Generator::admission(const GenerationRequest& request) const {
  if (request.prompt.empty()) return Admission::kEmptyPrompt;
  if (static_cast<std::int64_t>(request.prompt.size()) >= context()) return Admission::kPromptTooLong;
  for (const std::int32_t token : request.prompt)
    if (token < 0 || token >= decoder_.config().vocab_size) return Admission::kTokenOutOfVocabulary;
  return valid(request.sampling) ? Admission::kAccepted : Admission::kBadSampling;
}

std::int64_t Generator::groups() const {
  return static_cast<std::int64_t>(decoder_.kv_layout().groups.size());
}

std::int64_t Generator::context() const {
  return std::min(options_.max_model_len, blocks_.num_blocks() / groups() * blocks_.block_size());
}

std::int64_t Generator::longest(const GenerationRequest& request) const {
  const auto prompt = static_cast<std::int64_t>(request.prompt.size());
  return prompt + std::min(request.sampling.max_tokens, context() - prompt);
}

std::vector<GenerationResult> Generator::generate(std::span<const GenerationRequest> requests,
                                                  const OnToken& on_token, const std::atomic<bool>* cancel) {
  results_.assign(requests.size(), {});
  next_request_ = 0;
  for (std::size_t i = 0; i < requests.size(); ++i) results_[i].admission = admission(requests[i]);

  while (schedule(requests)) {
    if (cancel && cancel->load(std::memory_order_relaxed)) break;
    const Stopwatch watch;
    forward();
    sample();
    (step_has_prompt_ ? times_.prefill_seconds : times_.decode_seconds) += watch.seconds();
    (step_has_prompt_ ? times_.prompt_tokens : times_.decode_tokens) += batch_.tokens();
    commit(on_token);
  }
  for (Sequence& sequence : running_) finish(sequence, FinishReason::kAbort, -1);
  running_.clear();
  return std::move(results_);
}

void Generator::start(std::size_t request, const GenerationRequest& wanted) {
  const auto prompt_tokens = static_cast<std::int64_t>(wanted.prompt.size());
  const std::int64_t max_total = longest(wanted);
  Sequence sequence{.request = request,
                    .token_ids = wanted.prompt,
                    .prompt_tokens = prompt_tokens,
                    .max_total = max_total,
                    .blocks = {},
                    .sampler = Sampler(wanted.sampling, wanted.sampling.seed ? 0 : random_seed(),
                                       wanted.prompt, decoder_.config().vocab_size),
                    .stop_token_ids = wanted.sampling.stop_token_ids};
  sequence.token_ids.reserve(static_cast<std::size_t>(max_total));
  results_[request].token_ids.reserve(static_cast<std::size_t>(max_total - prompt_tokens));
  check(blocks_.allocate(groups() * blocks_.blocks_for(max_total), sequence.blocks),
        "an admitted request has blocks");
  running_.push_back(std::move(sequence));
}

void Generator::add_to_step(Sequence& sequence) {
  const std::int64_t count = std::min(sequence.remaining(), batch_.free_tokens());
  batch_.add(sequence.next_tokens(count), sequence.computed, sequence.blocks);
  step_has_prompt_ |= sequence.computed < sequence.prompt_tokens;
  sequence.computed += count;
  if (sequence.remaining() > 0) return;
  rows_.push_back(batch_.last_row());
  row_sequences_.push_back(static_cast<std::size_t>(&sequence - running_.data()));
}

bool Generator::schedule(std::span<const GenerationRequest> requests) {
  batch_.clear();
  rows_.clear();
  row_sequences_.clear();
  step_has_prompt_ = false;
  // Decoding first: a long prompt may not hold up the others.
  for (Sequence& sequence : running_)
    if (sequence.remaining() == 1) add_to_step(sequence);
  for (Sequence& sequence : running_)
    if (sequence.remaining() > 1 && batch_.free_tokens() > 0) add_to_step(sequence);
  while (next_request_ < requests.size() && batch_.free_tokens() > 0 &&
         static_cast<std::int64_t>(running_.size()) < options_.max_num_seqs) {
    const GenerationRequest& wanted = requests[next_request_];
    if (results_[next_request_].admission == Admission::kAccepted) {
      if (groups() * blocks_.blocks_for(longest(wanted)) > blocks_.free_blocks()) break;
      start(next_request_, wanted);
      add_to_step(running_.back());
    }
    ++next_request_;
  }
  return batch_.tokens() > 0;
}

void Generator::forward() {
  decoder_.forward(batch_.view(), *cache_);
}

void Generator::sample() {
  sampled_.resize(rows_.size());
  const auto vocabulary = static_cast<std::size_t>(decoder_.config().vocab_size);
  const auto most = static_cast<std::size_t>(decoder_.limits().max_logit_rows);
  for (std::size_t first = 0; first < rows_.size(); first += most) {
    const std::size_t count = std::min(most, rows_.size() - first);
    const std::span<const float> logits = decoder_.logits(std::span(rows_).subspan(first, count));
    const auto draw = [&](std::int64_t begin, std::int64_t end, int thread) {
      for (auto row = static_cast<std::size_t>(begin); row < static_cast<std::size_t>(end); ++row) {
        const Sequence& sequence = running_[row_sequences_[first + row]];
        sampled_[first + row] =
            sequence.sampler.sample(logits.subspan(row * vocabulary, vocabulary), sequence.known(),
                                    sequence.generated(), scratch_[static_cast<std::size_t>(thread)]);
      }
    };
    if (count == 1)
      draw(0, 1, 0);
    else
      pool_.parallel_for(static_cast<std::int64_t>(count), 1, std::ref(draw));  // by reference: no allocation
  }
}

void Generator::commit(const OnToken& on_token) {
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    Sequence& sequence = running_[row_sequences_[row]];
    const std::int32_t token = sampled_[row];
    sequence.token_ids.push_back(token);
    sequence.sampler.accept(token);
    results_[sequence.request].token_ids.push_back(token);
    if (std::ranges::find(sequence.stop_token_ids, token) != sequence.stop_token_ids.end())
      finish(sequence, FinishReason::kStop, token);
    else if (on_token && !on_token(sequence.request, token))
      finish(sequence, FinishReason::kStop, -1);
    else if (sequence.known() >= sequence.max_total)
      finish(sequence, FinishReason::kLength, -1);
  }
  std::erase_if(running_, [](const Sequence& sequence) { return sequence.blocks.empty(); });
}

void Generator::finish(Sequence& sequence, FinishReason reason, std::int32_t stop_token_id) {
  results_[sequence.request].finish_reason = reason;
  results_[sequence.request].stop_token_id = stop_token_id;
  blocks_.release(sequence.blocks);
}

}  // namespace bise
