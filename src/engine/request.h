// What a caller asks of the engine, in token ids, and what it gets. Plain values.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/token_constraint.h"

namespace bise {

// Ends a sequence whose output ends with `min_count` times the same pattern; vLLM's
// RepetitionDetectionParams.
struct RepetitionDetection {
  std::int64_t max_pattern_size = 0;  // tokens; 0: off
  std::int64_t min_pattern_size = 0;  // 0: 1
  std::int64_t min_count = 0;         // at least 2, unless off
};
// Whether the tokens end so.
bool ends_repeating(std::span<const std::int32_t> token_ids, const RepetitionDetection& detection);

// Names, meanings and defaults are vLLM's (spec/serving.md section 1.4).
struct SamplingParams {
  double temperature = 1;         // below 1e-5: greedy
  double top_p = 1;               // (0, 1]
  std::int64_t top_k = 0;         // <= 0: off
  double min_p = 0;               // [0, 1]
  double repetition_penalty = 1;  // > 0
  double presence_penalty = 0, frequency_penalty = 0;
  std::optional<std::uint64_t> seed = {};  // absent: a random one
  std::int64_t max_tokens = 16;
  std::int64_t min_tokens = 0;                    // stop tokens are not drawn before
  std::vector<std::int32_t> stop_token_ids = {};  // the model's end-of-sequence ids included
  RepetitionDetection repetition_detection = {};

  std::vector<std::pair<std::int32_t, float>> logit_bias = {};
  std::vector<std::int32_t> allowed_token_ids = {};        // empty: all
  std::vector<std::vector<std::int32_t>> bad_words = {};   // token sequences that may not be completed
  std::shared_ptr<const TokenConstraint> constraint = {};  // its initial state; null: none

  // Log-probabilities of each generated token and of this many best ones; kNoLogprobs: none, kAllLogprobs:
  // of the whole vocabulary.
  std::int64_t logprobs = kNoLogprobs;
  std::int64_t prompt_logprobs = kNoLogprobs;        // the same for each prompt token but the first
  std::vector<std::int32_t> logprob_token_ids = {};  // reported besides the best ones

  static constexpr std::int64_t kNoLogprobs = -2, kAllLogprobs = -1;
  bool greedy() const { return temperature < 1e-5; }
};

struct GenerationRequest {
  std::vector<std::int32_t> prompt = {};
  SamplingParams sampling = {};
  std::int64_t priority = 0;    // with the priority policy: smaller first
  std::string cache_salt = {};  // requests share prefix blocks only with those of the same salt
};

// Whether a request can run at all.
enum class Admission {
  kAccepted,
  kEmptyPrompt,
  kPromptTooLong,
  kTokenOutOfVocabulary,
  kBadSampling,
  kQueueFull,        // more than max_num_queued_reqs would wait
  kQueueTokensFull,  // more than max_num_queued_tokens would wait
  kStopped,          // the engine takes no more, or is dead
};
// "the prompt is empty", ...
std::string_view admission_text(Admission admission);

enum class FinishReason {
  kStop,        // a stop token, or the caller said so
  kLength,      // max_tokens, or the context is full
  kAbort,       // cancelled, or not admitted
  kError,       // the engine failed, or the sequence's logits are no numbers
  kRepetition,  // repetition_detection
};
// "stop", "length", "abort", "error", "repetition"
std::string_view finish_reason_text(FinishReason reason);

struct GenerationResult {
  std::vector<std::int32_t> token_ids;  // a stop token included
  FinishReason finish_reason = FinishReason::kAbort;
  std::int32_t stop_token_id = -1;  // the token that stopped it, or -1
  Admission admission = Admission::kAccepted;
};

}  // namespace bise
