#include "engine/request.h"

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

std::string_view finish_reason_text(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop: return "stop";
    case FinishReason::kLength: return "length";
    case FinishReason::kAbort: return "abort";
    case FinishReason::kError: return "error";
  }
  return "?";
}

}  // namespace bise
