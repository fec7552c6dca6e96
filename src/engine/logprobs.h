// What a position reports about the token that stands there: its log-probability, its rank, the best
// alternatives. Pure functions of a row of logits.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "engine/engine.h"
#include "engine/largest_logits.h"

namespace bise {

// vLLM's --logprobs-mode: what stands in for a log-probability of a generated token. The raw ones are of the
// model's own logits; the processed ones of those that the sampler drew from (removed tokens at -infinity).
// Prompt tokens always have raw log-probabilities.
enum class LogprobsMode { kRawLogprobs, kProcessedLogprobs, kRawLogits, kProcessedLogits };
// "raw_logprobs", ...; throws Error for another name.
LogprobsMode parse_logprobs_mode(std::string_view name);
std::string_view logprobs_mode_name(LogprobsMode mode);
inline bool is_processed(LogprobsMode mode) {
  return mode == LogprobsMode::kProcessedLogprobs || mode == LogprobsMode::kProcessedLogits;
}
inline bool is_logits(LogprobsMode mode) {
  return mode == LogprobsMode::kRawLogits || mode == LogprobsMode::kProcessedLogits;
}

struct LogprobsWanted {
  std::int64_t count = 0;                     // of best tokens; SamplingParams::kAllLogprobs
  std::span<const std::int32_t> token_ids{};  // reported besides
  bool logits = false;                        // the logits themselves, not normalized
};

// Memory that one call needs; one per thread, reused.
struct LogprobsScratch {
  explicit LogprobsScratch(std::int64_t vocab_size) : largest(vocab_size) {}
  LargestLogits largest;
  std::vector<RankedLogit> best;
};

// `result` about `token` in `logits`. Its rank counts the tokens that are at least as likely, itself
// included, as vLLM does.
void position_logprobs(std::span<const float> logits, std::int32_t token, const LogprobsWanted& wanted,
                       LogprobsScratch& scratch, PositionLogprobs& result);

}  // namespace bise
