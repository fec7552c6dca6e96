#include "engine/engine_core.h"

#include <algorithm>
#include <chrono>
#include <random>

#include "base/check.h"
#include "base/error.h"

namespace bise {
namespace {

std::uint64_t random_seed() {
  std::random_device device;
  return (static_cast<std::uint64_t>(device()) << 32) | device();
}

void check_options(const EngineOptions& options) {
  const auto at_least = [](std::int64_t value, std::int64_t least, const char* name) {
    if (value < least)
      throw Error("an engine option is too small")
          .at(name)
          .expected(fmt::format("at least {}", least))
          .got(fmt::to_string(value));
  };
  at_least(options.max_num_seqs, 1, "max_num_seqs");
  at_least(options.max_model_len, 2, "max_model_len");
  at_least(options.max_num_batched_tokens, options.max_num_seqs, "max_num_batched_tokens");
  if (!options.enable_chunked_prefill)
    at_least(options.max_num_batched_tokens, options.max_model_len,
             "max_num_batched_tokens without chunked prefill");
  at_least(options.long_prefill_token_threshold, 0, "long_prefill_token_threshold");
  at_least(options.num_speculative_tokens, 0, "num_speculative_tokens");
  if (options.num_speculative_tokens == 0) return;
  at_least(options.prompt_lookup_min, 1, "prompt_lookup_min");
  at_least(options.prompt_lookup_max, options.prompt_lookup_min, "prompt_lookup_max");
}

}  // namespace

double engine_clock_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

EngineCore::EngineCore(ModelRunner& runner, const EngineOptions& options)
    : runner_(runner),
      hasher_(random_seed()),
      seed_(random_seed()),
      state_{.options = options,
             .blocks = KvBlocks(runner.kv_layout(), runner.num_blocks(), runner.block_size(),
                                options.max_num_batched_tokens),
             .running = {},
             .waiting = {}} {
  check_options(options);
  state_.options.max_model_len = state_.blocks.longest_sequence(options.max_model_len);
  if (state_.options.max_model_len < 2)
    throw Error("the KV cache is too small for any sequence")
        .got(fmt::format("{} blocks", runner.num_blocks()));
  stats_.total_blocks = state_.blocks.pool().num_blocks() - 1;
  stats_.block_size = runner.block_size();
  stats_.accepted_per_position.resize(static_cast<std::size_t>(options.num_speculative_tokens));
  const auto sequences = static_cast<std::size_t>(options.max_num_seqs);
  state_.running.reserve(sequences);
  step_.reserve(sequences);
  outputs_.reserve(sequences);
  ended_.reserve(sequences);
}

EngineCore::~EngineCore() = default;

Admission EngineCore::admission(const GenerationRequest& request) const {
  const SamplingParams& sampling = request.sampling;
  if (request.prompt.empty()) return Admission::kEmptyPrompt;
  if (static_cast<std::int64_t>(request.prompt.size()) >= options().max_model_len)
    return Admission::kPromptTooLong;
  const std::int64_t vocab_size = runner_.vocab_size();
  for (const std::int32_t token : request.prompt)
    if (token < 0 || token >= vocab_size) return Admission::kTokenOutOfVocabulary;
  // These would change a guess's probability in ways that its acceptance does not know (as in vLLM).
  if (options().num_speculative_tokens > 0 && (sampling.min_p > 0 || !sampling.logit_bias.empty()))
    return Admission::kBadSampling;
  return valid(sampling, vocab_size) ? Admission::kAccepted : Admission::kBadSampling;
}

std::unique_ptr<Sequence> EngineCore::make_sequence(const GenerationRequest& request) {
  const RequestId id = next_id_.fetch_add(1, std::memory_order_relaxed);
  const SamplingParams& sampling = request.sampling;
  const auto prompt_tokens = static_cast<std::int64_t>(request.prompt.size());
  const auto groups = static_cast<std::size_t>(state_.blocks.groups());
  auto sequence = std::make_unique<Sequence>(Sequence{
      .id = id,
      .priority = options().scheduling_policy == SchedulingPolicy::kPriority ? request.priority : 0,
      .token_ids = request.prompt,
      .prompt_tokens = prompt_tokens,
      .max_total = prompt_tokens + std::min(sampling.max_tokens, options().max_model_len - prompt_tokens),
      .min_tokens = sampling.min_tokens,
      .stop_token_ids = sampling.stop_token_ids,
      // An odd factor: different ids, different seeds.
      .sampler = Sampler(sampling, seed_ + id * 0x9e3779b97f4a7c15u, request.prompt, runner_.vocab_size()),
      .proposer = {},
      .block_tables = std::vector<std::vector<std::int32_t>>(groups),
      .freed_blocks = std::vector<std::int64_t>(groups),
      .root = {},
      .hashes = {},
      .scores_prompt = sampling.prompt_logprobs != SamplingParams::kNoLogprobs && prompt_tokens > 1,
      .prompt_logprobs = {},
      .times = {.queued = engine_clock_seconds()},
      .finish_reason = {},
      .listener = {}});
  // So that steps seldom allocate; a few tokens more than max_total may be drawn by speculation.
  constexpr std::int64_t kReserved = 4096;
  const std::int64_t longest = std::min(sequence->max_total, prompt_tokens + kReserved);
  sequence->token_ids.reserve(static_cast<std::size_t>(longest + options().num_speculative_tokens));
  for (auto& table : sequence->block_tables)
    table.reserve(static_cast<std::size_t>(state_.blocks.blocks_for(longest)));
  if (options().enable_prefix_caching) {
    sequence->root = hasher_.root(request.cache_salt);
    sequence->hashes.reserve(static_cast<std::size_t>(state_.blocks.blocks_for(longest)));
    extend_hashes(*sequence, state_.blocks.block_size());
  }
  if (options().num_speculative_tokens > 0) {
    sequence->proposer.emplace(options().prompt_lookup_min, options().prompt_lookup_max);
    sequence->proposer->update(sequence->history());
  }
  return sequence;
}

void EngineCore::add(std::unique_ptr<Sequence> sequence) {
  state_.waiting.insert(sequence.get());
  waiting_tokens_ += sequence->prompt_tokens;
  sequences_.emplace(sequence->id, std::move(sequence));
}

RequestOutput& EngineCore::add_output(Sequence& sequence) {
  if (output_count_ == outputs_.size()) outputs_.emplace_back();
  outputs_[output_count_].sequence = &sequence;
  RequestOutput& output = outputs_[output_count_++].output;
  output.id = sequence.id;
  output.token_ids.clear();
  output.logprobs.clear();
  output.prompt_logprobs.clear();
  output.cached_tokens = sequence.cached_tokens;
  output.times = sequence.times;
  output.finish_reason = sequence.finish_reason;
  output.stop_token_id = sequence.stop_token_id;
  return output;
}

void EngineCore::clear_outputs() {
  output_count_ = 0;
  ended_.clear();
}

// Gives back what the sequence holds; it leaves `running` at the end of the step.
void EngineCore::end(Sequence& sequence, FinishReason reason) {
  sequence.finish_reason = reason;
  state_.blocks.release(sequence);
  if (state_.waiting.erase(&sequence) > 0) {
    if (!sequence.was_preempted) waiting_tokens_ -= sequence.prompt_tokens;
    if (state_.blocked == &sequence) state_.blocked = nullptr;
  }
  const auto owner = sequences_.find(sequence.id);
  ended_.push_back(std::move(owner->second));
  sequences_.erase(owner);
}

void EngineCore::finish(RequestId id, FinishReason reason) {
  const auto found = sequences_.find(id);
  if (found == sequences_.end()) return;
  Sequence& sequence = *found->second;
  end(sequence, reason);
  std::erase(state_.running, &sequence);
  add_output(sequence);
}

void EngineCore::finish_all(FinishReason reason) {
  while (!sequences_.empty()) finish(sequences_.begin()->first, reason);
}

void EngineCore::abandon_all(FinishReason reason) {
  for (auto& [id, sequence] : sequences_) {
    sequence->finish_reason = reason;
    add_output(*sequence);
    ended_.push_back(std::move(sequence));
  }
  sequences_.clear();
  state_.running.clear();
  state_.waiting.clear();
}

std::int64_t EngineCore::step() {
  if (!has_work()) return 0;
  schedule(state_, options().max_num_batched_tokens, plan_);
  check(!plan_.sequences.empty(), "a step computes something while there is work");
  apply(plan_, state_);
  launch();
  commit(runner_.results());
  return plan_.tokens;
}

void EngineCore::launch() {
  step_.clear();
  tables_.clear();
  // Spans into it must not move.
  tables_.reserve(plan_.sequences.size() * static_cast<std::size_t>(state_.blocks.groups()));
  step_had_prompt_ = false;
  double now = 0;
  for (const PlannedSequence& planned : plan_.sequences) {
    Sequence& sequence = *planned.sequence;
    if (planned.admitted && !sequence.was_preempted) {
      if (now == 0) now = engine_clock_seconds();
      sequence.times.scheduled = now;
      waiting_tokens_ -= sequence.prompt_tokens;
      count_prompt(sequence);
    }
    const std::size_t first_table = tables_.size();
    for (const auto& table : sequence.block_tables) tables_.emplace_back(table);
    const std::int64_t to_score = sequence.prompt_tokens - 1 - planned.computed;
    const bool sample = planned.computes_all();
    step_.push_back(
        {.token_ids = std::span(sequence.token_ids)
                          .subspan(static_cast<std::size_t>(planned.computed),
                                   static_cast<std::size_t>(planned.tokens)),
         .computed = planned.computed,
         .drafts = planned.drafts,
         .block_tables = std::span(tables_).subspan(first_table),
         .sample = sample,
         .history = sequence.history(),
         .prompt_tokens = sequence.prompt_tokens,
         .sampler = sample || sequence.scores_prompt ? &sequence.sampler : nullptr,
         .score_rows = sequence.scores_prompt ? std::clamp<std::int64_t>(to_score, 0, planned.tokens) : 0});
    step_had_prompt_ |= planned.computed < sequence.prompt_tokens;
  }
  runner_.launch(step_);
}

void EngineCore::count_prompt(const Sequence& sequence) {
  stats_.prompt_tokens += sequence.prompt_tokens;
  stats_.prompt_tokens_cached += sequence.cached_tokens;
  if (!sequence.root || sequence.scores_prompt) return;
  stats_.prefix_cache_queries += sequence.prompt_tokens;
  stats_.prefix_cache_hits += sequence.cached_tokens;
}

void EngineCore::commit(std::span<const StepResult> results) {
  check(results.size() == plan_.sequences.size(), "every sequence has a result");
  const double now = engine_clock_seconds();
  const std::size_t ended = ended_.size();
  for (std::size_t i = 0; i < results.size(); ++i) commit(plan_.sequences[i], results[i], now);
  if (ended_.size() > ended)
    std::erase_if(state_.running,
                  [](const Sequence* sequence) { return sequence->finish_reason.has_value(); });
  ++stats_.steps;
}

void EngineCore::commit(const PlannedSequence& planned, const StepResult& result, double now) {
  Sequence& sequence = *planned.sequence;
  if (result.failed) {
    sequence.drop_drafts();
    sequence.finish_reason = FinishReason::kError;
    add_output(sequence);
    end(sequence, FinishReason::kError);
    return;
  }
  const bool sampled = planned.computes_all();
  const auto drawn = static_cast<std::int64_t>(result.token_ids.size());
  check(sampled ? drawn >= 1 && drawn <= planned.drafts + 1 : drawn == 0, "as many tokens as asked for");
  sequence.drop_drafts();
  // What stands in the cache behind `computed`, of rejected guesses, is written again.
  sequence.computed = planned.end() + (sampled ? drawn - 1 : 0);
  if (sequence.scores_prompt)
    sequence.prompt_logprobs.insert(sequence.prompt_logprobs.end(), result.prompt_logprobs.begin(),
                                    result.prompt_logprobs.end());
  if (!sampled) {
    state_.blocks.free_behind_windows(sequence);
    return;
  }

  if (planned.drafts > 0) {
    ++stats_.drafts;
    stats_.draft_tokens += planned.drafts;
    stats_.accepted_tokens += drawn - 1;
    for (std::size_t i = 0; i + 1 < result.token_ids.size(); ++i) ++stats_.accepted_per_position[i];
  }
  std::size_t kept = 0;
  while (kept < result.token_ids.size() && !sequence.finish_reason)
    append(sequence, result.token_ids[kept++]);
  stats_.generation_tokens += static_cast<std::int64_t>(kept);
  if (sequence.times.first_token == 0) sequence.times.first_token = now;
  sequence.times.last_token = now;

  RequestOutput& output = add_output(sequence);
  output.token_ids.assign(result.token_ids.begin(),
                          result.token_ids.begin() + static_cast<std::ptrdiff_t>(kept));
  const std::size_t scored = std::min(kept, result.logprobs.size());
  output.logprobs.assign(result.logprobs.begin(),
                         result.logprobs.begin() + static_cast<std::ptrdiff_t>(scored));
  output.prompt_logprobs = std::move(sequence.prompt_logprobs);
  sequence.scores_prompt = false;
  if (sequence.finish_reason) {
    end(sequence, *sequence.finish_reason);
    return;
  }
  extend_hashes(sequence, state_.blocks.block_size());
  state_.blocks.free_behind_windows(sequence);
  if (sequence.proposer) guess(sequence);
}

// The rules of spec/serving.md section 1.7, in its order.
void EngineCore::append(Sequence& sequence, std::int32_t token) {
  sequence.token_ids.push_back(token);
  if (sequence.generated() > sequence.min_tokens &&
      std::ranges::find(sequence.stop_token_ids, token) != sequence.stop_token_ids.end()) {
    sequence.finish_reason = FinishReason::kStop;
    sequence.stop_token_id = token;
  } else if (sequence.known() >= sequence.max_total) {
    sequence.finish_reason = FinishReason::kLength;
  } else if (ends_repeating(sequence.history().subspan(static_cast<std::size_t>(sequence.prompt_tokens)),
                            sequence.sampler.params().repetition_detection)) {
    sequence.finish_reason = FinishReason::kRepetition;
  }
}

// One token is drawn after the guesses: they stop one before the end.
void EngineCore::guess(Sequence& sequence) {
  const std::int64_t known = sequence.known();
  sequence.proposer->update(sequence.history());
  const std::int64_t count = std::min(options().num_speculative_tokens, sequence.max_total - known - 1);
  const std::span<const std::int32_t> guesses = sequence.proposer->propose(sequence.history(), count);
  drafts_.assign(guesses.begin(), guesses.end());  // they stand in the very vector that grows
  sequence.token_ids.insert(sequence.token_ids.end(), drafts_.begin(), drafts_.end());
  sequence.drafts = static_cast<std::int64_t>(drafts_.size());
}

const EngineStats& EngineCore::stats() {
  stats_.running = static_cast<std::int64_t>(state_.running.size());
  stats_.waiting = static_cast<std::int64_t>(state_.waiting.size());
  stats_.used_blocks = state_.blocks.pool().used_blocks();
  stats_.preemptions = state_.preemptions;
  return stats_;
}

}  // namespace bise
