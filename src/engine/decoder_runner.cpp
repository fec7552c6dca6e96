#include "engine/decoder_runner.h"

#include <algorithm>
#include <functional>

#include "base/check.h"
#include "base/log.h"

namespace bise {
namespace {

std::int64_t blocks_for(std::int64_t tokens, std::int64_t block_size) {
  return (tokens + block_size - 1) / block_size;
}

bool wants_logprobs(const SamplingParams& params) {
  return params.logprobs != SamplingParams::kNoLogprobs || !params.logprob_token_ids.empty();
}

}  // namespace

DecoderRunner::DecoderRunner(Decoder& decoder, ThreadPool& pool, const DecoderRunnerOptions& options)
    : decoder_(decoder),
      pool_(pool),
      logprobs_mode_(options.logprobs_mode),
      vocabulary_(static_cast<std::size_t>(decoder.config().vocab_size)),
      rows_at_once_(static_cast<std::size_t>(decoder.limits().max_logit_rows)),
      cache_(decoder.make_kv_cache(options.num_blocks, options.kv_cache_dtype)),
      batch_(decoder.limits().max_tokens, options.max_num_seqs,
             blocks_for(options.max_sequence_tokens, cache_->shape().block_size),
             static_cast<std::int64_t>(decoder.kv_layout().groups.size())),
      results_(static_cast<std::size_t>(options.max_num_seqs)),
      missed_(results_.size()) {
  // Not copies of one: a copy has no room.
  scratch_.reserve(static_cast<std::size_t>(pool.threads()));
  for (int thread = 0; thread < pool.threads(); ++thread) scratch_.emplace_back(decoder.config().vocab_size);
  if (options.kv_cache_dtype == DType::kF8E4M3 && !decoder.has_kv_scales())
    log_warning("the checkpoint has no scales for a float8 KV cache: with 1.0, accuracy may suffer");
  const auto drawn = static_cast<std::size_t>(1 + options.num_speculative_tokens);
  for (StepResult& result : results_) result.token_ids.reserve(drawn);
  // Rows to score come besides; there may be one for each token of a step.
  rows_.reserve(std::min(results_.size() * drawn, static_cast<std::size_t>(decoder.limits().max_tokens)));
  work_.reserve(2 * results_.size());
  draws_.reserve(rows_.capacity());
  drawn_.resize(rows_at_once_);
  read_rows_.reserve(rows_at_once_);
  edited_.reserve(rows_at_once_);
  constrained_.reserve(results_.size());
}

// A piece of logits() ends where it must: work is cut there.
void DecoderRunner::add_rows(std::size_t index, std::int64_t first_token, std::int64_t count,
                             std::int32_t row, bool draws) {
  for (std::int64_t i = 0; i < count; ++i) {
    const std::size_t at = rows_.size();
    rows_.push_back(row + static_cast<std::int32_t>(i));
    if (draws && i > 0 && at % rows_at_once_ != 0)
      ++work_.back().end_row;
    else
      work_.push_back({.sequence = index,
                       .first_row = at,
                       .end_row = at + 1,
                       .draws = draws,
                       .first_token = first_token + i});
  }
}

void DecoderRunner::launch(std::span<const StepSequence> sequences) {
  check(sequences.size() <= results_.size(), "a step has at most max_num_seqs sequences");
  sequences_ = sequences;
  batch_.clear();
  rows_.clear();
  work_.clear();
  constrained_.clear();
  draws_.clear();
  device_draws_ = false;
  pending_ = true;
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const StepSequence& sequence = sequences[s];
    const auto tokens = static_cast<std::int64_t>(sequence.token_ids.size());
    const auto row = static_cast<std::int32_t>(batch_.tokens());
    batch_.add(sequence.token_ids, sequence.computed, sequence.block_tables);
    results_[s].token_ids.clear();
    results_[s].logprobs.clear();
    results_[s].prompt_logprobs.resize(static_cast<std::size_t>(sequence.score_rows));
    results_[s].failed = false;
    missed_[s] = 0;
    add_rows(s, 0, sequence.score_rows, row, false);
    if (!sequence.sample) continue;
    const std::int64_t first = tokens - 1 - sequence.drafts;
    check(first >= 0, "a token that is no draft comes before the drafts");
    add_rows(s, first, 1 + sequence.drafts, row + static_cast<std::int32_t>(first), true);
    if (sequence.sampler->constrained()) constrained_.push_back(s);
    if (decoder_.draws_tokens()) let_device_draw(sequence);
  }
  Batch batch = batch_.view();
  if (device_draws_) {
    draws_.resize(rows_.size());
    batch.draws = draws_;
    decoder_.forward_and_draw(batch, *cache_, std::span(rows_).first(std::min(rows_.size(), rows_at_once_)));
  } else {
    decoder_.forward(batch, *cache_);
  }
  prepare_masks();
  if (device_draws_) draw_edited(0, std::min(rows_.size(), rows_at_once_), work_);
}

// The sequence's work was added last.
void DecoderRunner::let_device_draw(const StepSequence& sequence) {
  if (sequence.drafts > 0 || wants_logprobs(sequence.sampler->params())) return;
  const std::optional<TokenDraw> draw = sequence.sampler->device_draw();
  if (!draw) return;
  draws_.resize(rows_.size());
  work_.back().on_device = device_draws_ = true;
  work_.back().edited = sequence.sampler->edits_logits();
  draws_.back() = *draw;
  if (work_.back().edited) draws_.back().factor = -1;  // not yet
}

// For rows [first, first + count) as far as they are in `work`.
void DecoderRunner::draw_edited(std::size_t first, std::size_t count, std::span<const Work> work) {
  edited_.clear();
  for (const Work& each : work) {
    if (!each.edited || each.first_row < first || each.first_row >= first + count) continue;
    Sampler& sampler = *sequences_[each.sequence].sampler;
    edited_.push_back({.row = static_cast<std::int32_t>(each.first_row - first),
                       .draw = *sampler.device_draw(),
                       .edits = sampler.device_edits()});
  }
  if (!edited_.empty()) decoder_.draw_edited(edited_);
}

// While a device computes the forward pass.
void DecoderRunner::prepare_masks() {
  if (constrained_.empty()) return;
  pool_.parallel_for(static_cast<std::int64_t>(constrained_.size()), 1,
                     [&](std::int64_t begin, std::int64_t end, int) {
                       for (auto i = begin; i < end; ++i)
                         sequences_[constrained_[static_cast<std::size_t>(i)]].sampler->prepare();
                     });
}

std::span<const StepResult> DecoderRunner::results() {
  const std::span<const StepResult> results = std::span(results_).first(sequences_.size());
  if (!pending_) return results;
  pending_ = false;
  std::size_t next = 0;  // in work_
  for (std::size_t first = 0; first < rows_.size(); first += rows_at_once_) {
    const std::size_t count = std::min(rows_at_once_, rows_.size() - first);
    const std::size_t from = next;
    while (next < work_.size() && work_[next].first_row < first + count) ++next;
    const std::span<Work> piece = std::span(work_).subspan(from, next - from);
    const std::span<const float> logits = piece_logits(first, count, piece);
    if (logits.empty()) continue;
    const auto body = [&](std::int64_t begin, std::int64_t end, int thread) {
      for (const Work& work :
           piece.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)))
        if (!work.on_device)
          do_work(work, logits.subspan(work.logits_row * vocabulary_),
                  scratch_[static_cast<std::size_t>(thread)]);
    };
    const auto items = static_cast<std::int64_t>(piece.size());
    if (items == 1)
      body(0, 1, 0);
    else
      pool_.parallel_for(items, 1, std::ref(body));  // by reference: no allocation
  }
  return results;
}

// The logits that the host needs of rows [first, first + count) and where each work's are; takes the tokens
// that the device drew.
std::span<const float> DecoderRunner::piece_logits(std::size_t first, std::size_t count,
                                                   std::span<Work> piece) {
  const std::span<const std::int32_t> rows = std::span(rows_).subspan(first, count);
  if (!device_draws_) {
    for (Work& work : piece) work.logits_row = work.first_row - first;
    return decoder_.logits(rows);
  }
  if (first > 0) {
    decoder_.draw(rows, static_cast<std::int64_t>(first));
    draw_edited(first, count, piece);
  }
  decoder_.read_drawn(std::span(drawn_).first(count));
  read_rows_.clear();
  for (Work& work : piece) {
    if (work.on_device && accept_drawn(work, drawn_[work.first_row - first])) continue;
    work.on_device = false;
    work.logits_row = read_rows_.size();
    for (std::size_t row = work.first_row; row < work.end_row; ++row)
      read_rows_.push_back(static_cast<std::int32_t>(row - first));
  }
  return read_rows_.empty() ? std::span<const float>() : decoder_.drawn_logits(read_rows_);
}

// False without a token: the host's sampler says whether a logit is no number or the masks left none.
bool DecoderRunner::accept_drawn(const Work& work, std::int32_t token) {
  if (token < 0) return false;
  results_[work.sequence].token_ids.push_back(token);
  sequences_[work.sequence].sampler->accept(token);
  return true;
}

// `logits` begins with the work's first row. A sequence whose numbers overflowed takes no other with it.
void DecoderRunner::do_work(const Work& work, std::span<const float> logits, Scratch& scratch) {
  try {
    work.draws ? draw(work, logits, scratch) : score(work, logits.first(vocabulary_), scratch);
  } catch (const NanLogit&) {
    std::atomic_ref(results_[work.sequence].failed).store(true, std::memory_order_relaxed);
  }
}

// A draft is accepted when it is the very token that the sampler draws there. Draws are a function of seed,
// position and history, so the output is what it would be without speculation; and a token drawn by
// Gumbel-max has the model's distribution whatever was guessed.
void DecoderRunner::draw(const Work& work, std::span<const float> logits, Scratch& scratch) {
  const StepSequence& sequence = sequences_[work.sequence];
  const SamplingParams& params = sequence.sampler->params();
  StepResult& result = results_[work.sequence];
  for (std::size_t row = work.first_row; row < work.end_row && !missed_[work.sequence]; ++row) {
    const auto raw = logits.subspan((row - work.first_row) * vocabulary_, vocabulary_);
    const std::int32_t token = sequence.sampler->sample(raw, scratch.sampler);
    if (wants_logprobs(params)) {
      const auto reported =
          is_processed(logprobs_mode_) ? sequence.sampler->processed_logits(raw, scratch.sampler) : raw;
      const LogprobsWanted wanted{params.logprobs == SamplingParams::kNoLogprobs ? 0 : params.logprobs,
                                  params.logprob_token_ids, is_logits(logprobs_mode_)};
      position_logprobs(reported, token, wanted, scratch.logprobs, result.logprobs.emplace_back());
    }
    result.token_ids.push_back(token);
    sequence.sampler->accept(token);
    const auto next = static_cast<std::size_t>(work.first_token) + (row - work.first_row) + 1;
    missed_[work.sequence] = next >= sequence.token_ids.size() || sequence.token_ids[next] != token ? 1 : 0;
  }
}

void DecoderRunner::score(const Work& work, std::span<const float> logits, Scratch& scratch) {
  const StepSequence& sequence = sequences_[work.sequence];
  const auto next = static_cast<std::size_t>(sequence.computed + work.first_token + 1);
  check(next < sequence.history.size(), "the token to score is known");
  const LogprobsWanted wanted{sequence.sampler->params().prompt_logprobs, {}, false};
  position_logprobs(logits, sequence.history[next], wanted, scratch.logprobs,
                    results_[work.sequence].prompt_logprobs[static_cast<std::size_t>(work.first_token)]);
}

}  // namespace bise
