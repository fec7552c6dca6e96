#include "engine/continuation_scorer.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "engine/log_softmax.h"

namespace bise {
namespace {

constexpr std::int64_t kMaxSequences = 64;  // of one step

std::int64_t common_length(std::span<const std::int32_t> a, std::span<const std::int32_t> b) {
  return std::ranges::mismatch(a, b).in1 - a.begin();
}

}  // namespace

ContinuationScorer::ContinuationScorer(Decoder& decoder, ThreadPool& pool, DType kv_cache_dtype)
    : decoder_(decoder),
      pool_(pool),
      kv_cache_dtype_(kv_cache_dtype),
      block_size_(decoder.backend().preferred_block_size()) {}

void ContinuationScorer::prepare(std::span<const ScoredSequence> sequences) {
  std::int64_t longest = 0;
  for (const ScoredSequence& sequence : sequences) {
    const auto length = static_cast<std::int64_t>(sequence.token_ids.size());
    check(sequence.first >= 1 && sequence.first < length, "a sequence has tokens to score and tokens before");
    for (const std::int32_t token : sequence.token_ids)
      check(token >= 0 && token < decoder_.config().vocab_size, "a token is in the vocabulary");
    longest = std::max(longest, length);
  }
  // The first and the last sequence of a step may be long; those between fit the step.
  const std::int64_t tokens = decoder_.limits().max_tokens;
  const std::int64_t per_sequence = (longest + block_size_ - 1) / block_size_;
  const std::int64_t columns = 3 * per_sequence + tokens / block_size_ + 2 * kMaxSequences;
  const auto groups = static_cast<std::int64_t>(decoder_.kv_layout().groups.size());
  cache_ = decoder_.make_kv_cache(columns * groups, kv_cache_dtype_);
  batch_ = std::make_unique<StepBatch>(tokens, kMaxSequences, per_sequence, groups);
  holders_.assign(static_cast<std::size_t>(columns), 0);
  free_columns_.resize(static_cast<std::size_t>(columns));
  std::iota(free_columns_.rbegin(), free_columns_.rend(), 0);
  step_.clear();
}

// Takes over the full blocks of what the sequence before it has in common, up to the first scored row.
void ContinuationScorer::start(const ScoredSequence& sequence, std::size_t index) {
  Active active{&sequence, index, 0, false, {}};
  const auto fed = std::span(sequence.token_ids).first(static_cast<std::size_t>(active.fed_length()));
  if (!step_.empty()) {
    const Active& before = step_.back();
    const auto known =
        std::span(before.sequence->token_ids).first(static_cast<std::size_t>(before.fed_length()));
    const std::int64_t blocks = std::min(common_length(fed, known), sequence.first - 1) / block_size_;
    active.columns.assign(before.columns.begin(), before.columns.begin() + blocks);
    active.computed = blocks * block_size_;
  }
  const std::int64_t wanted = (active.fed_length() + block_size_ - 1) / block_size_;
  while (static_cast<std::int64_t>(active.columns.size()) < wanted) {
    check(!free_columns_.empty(), "the cache has room for the sequences of a step");
    active.columns.push_back(free_columns_.back());
    free_columns_.pop_back();
  }
  for (const std::int32_t column : active.columns) ++holders_[static_cast<std::size_t>(column)];
  given_tokens_ += active.fed_length();
  step_.push_back(std::move(active));
}

void ContinuationScorer::feed(Active& active) {
  const std::int64_t count = std::min(active.fed_length() - active.computed, batch_->free_tokens());
  const auto groups = static_cast<std::int32_t>(decoder_.kv_layout().groups.size());
  std::vector<std::int32_t> blocks;
  for (std::int32_t group = 0; group < groups; ++group)
    for (const std::int32_t column : active.columns) blocks.push_back(column * groups + group);
  const std::int64_t first_row = batch_->tokens();
  const ScoredSequence& sequence = *active.sequence;
  batch_->add(std::span(sequence.token_ids)
                  .subspan(static_cast<std::size_t>(active.computed), static_cast<std::size_t>(count)),
              active.computed, blocks);
  for (std::int64_t position = std::max(sequence.first - 1, active.computed);
       position < active.computed + count; ++position)
    rows_.push_back({static_cast<std::int32_t>(first_row + position - active.computed),
                     sequence.token_ids[static_cast<std::size_t>(position + 1)], active.index, 0, false});
  active.computed += count;
  computed_tokens_ += count;
}

void ContinuationScorer::read_rows() {
  const auto vocabulary = static_cast<std::size_t>(decoder_.config().vocab_size);
  const auto most = static_cast<std::size_t>(decoder_.limits().max_logit_rows);
  for (std::size_t from = 0; from < rows_.size(); from += most) {
    const std::span<Row> rows = std::span(rows_).subspan(from, std::min(most, rows_.size() - from));
    std::vector<std::int32_t> wanted;
    for (const Row& row : rows) wanted.push_back(row.row);
    const std::span<const float> logits = decoder_.logits(wanted);
    pool_.parallel_for(
        static_cast<std::int64_t>(rows.size()), 1, [&](std::int64_t begin, std::int64_t end, int) {
          for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
            const auto row = logits.subspan(i * vocabulary, vocabulary);
            const float largest = largest_value(row);
            const float own = row[static_cast<std::size_t>(rows[i].token)];
            rows[i].logprob = static_cast<double>(own) - log_sum_exp(row, largest);
            rows[i].greedy = own == largest;
          }
        });
  }
}

void ContinuationScorer::release(const Active& active) {
  for (const std::int32_t column : active.columns)
    if (--holders_[static_cast<std::size_t>(column)] == 0) free_columns_.push_back(column);
}

std::vector<ContinuationScore> ContinuationScorer::score(std::span<const ScoredSequence> sequences,
                                                         const OnScored& on_scored) {
  std::vector<ContinuationScore> result(sequences.size(), {0, true});
  if (sequences.empty()) return result;
  prepare(sequences);
  std::vector<std::size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(
      order, {}, [&](std::size_t i) -> const std::vector<std::int32_t>& { return sequences[i].token_ids; });
  for (std::size_t next = 0; next < order.size() || !step_.back().fed();) {
    batch_->clear();
    rows_.clear();
    while (batch_->free_tokens() > 0 && batch_->sequences() < kMaxSequences) {
      if (step_.empty() || step_.back().fed()) {
        if (next == order.size()) break;
        start(sequences[order[next]], order[next]);
        ++next;
      }
      feed(step_.back());
    }
    decoder_.forward(batch_->view(), *cache_);
    read_rows();
    for (const Row& row : rows_) {
      result[row.index].logprob += row.logprob;
      result[row.index].greedy &= row.greedy;
    }
    // The last one stays: the next takes over what they share.
    for (Active& active : step_)
      if (on_scored && active.fed() && !std::exchange(active.reported, true))
        on_scored(active.index, result[active.index]);
    for (std::size_t i = 0; i + 1 < step_.size(); ++i) release(step_[i]);
    step_.erase(step_.begin(), step_.end() - 1);
  }
  return result;
}

}  // namespace bise
