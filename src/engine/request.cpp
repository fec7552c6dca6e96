#include "engine/request.h"

#include <algorithm>

namespace bise {

std::string_view admission_text(Admission admission) {
  switch (admission) {
    case Admission::kQueueFull: return "too many requests are waiting";
    case Admission::kQueueTokensFull: return "too many tokens are waiting";
    case Admission::kStopped: return "the engine takes no more requests";
    case Admission::kAccepted: return "accepted";
    case Admission::kEmptyPrompt: return "the prompt is empty";
    case Admission::kPromptTooLong: return "the prompt is longer than the context";
    case Admission::kTokenOutOfVocabulary: return "a token id is outside the vocabulary";
    case Admission::kBadSampling: return "a sampling parameter is outside its range";
  }
  return "?";
}

bool ends_repeating(std::span<const std::int32_t> token_ids, const RepetitionDetection& detection) {
  if (detection.max_pattern_size <= 0 || detection.min_count < 2) return false;
  const auto tokens = static_cast<std::int64_t>(token_ids.size());
  const std::int64_t longest = std::min(detection.max_pattern_size, tokens / detection.min_count);
  for (auto size = std::max<std::int64_t>(detection.min_pattern_size, 1); size <= longest; ++size) {
    // Each token of the end but the first pattern's equals the one a pattern before.
    const auto end = token_ids.last(static_cast<std::size_t>(size * detection.min_count));
    if (std::equal(end.begin() + size, end.end(), end.begin())) return true;
  }
  return false;
}

std::string_view finish_reason_text(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kAbort: return "abort";
    case FinishReason::kError: return "error";
    case FinishReason::kRepetition: return "repetition";
  }
  return "?";
}

}  // namespace bise
