// One choice of an answer while it is generated: its tokens become text, stop strings end it. Belongs to its
// call, one thread at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "serve/generation_fields.h"
#include "serve/served_model.h"
#include "text/detokenizer.h"
#include "text/stop_strings.h"

namespace bise {

// What is new since the last look, or all of it for an answer given whole.
struct ChoiceDelta {
  std::string text;
  std::vector<std::int32_t> token_ids;            // a stop token included
  std::vector<PositionLogprobs> logprobs;         // one a token, when asked for
  std::vector<PositionLogprobs> prompt_logprobs;  // with the first, when asked for
  std::int64_t tokens = 0;
};

class ChoiceStream {
 public:
  // `visible`: control tokens that are text here even when special tokens are skipped.
  ChoiceStream(const GenerationFields& fields, const ServedModel& model, std::span<const std::int32_t> prompt,
               std::span<const std::int32_t> visible);

  // Takes a step's output; nothing once the choice is finished.
  void push(RequestOutput&& output);

  ChoiceDelta& delta() { return delta_; }
  std::int64_t generated() const { return generated_; }
  std::int64_t cached_tokens() const { return cached_tokens_; }

  // The engine's reason, or kStop when a stop string came: then the engine goes on until it is told.
  std::optional<FinishReason> finish_reason() const { return finish_reason_; }
  const std::string* stop_string() const { return stops_.matched(); }
  // The token that stopped it, if it was not an end-of-sequence one; else -1.
  std::int32_t stop_token_id() const { return stop_token_id_; }

 private:
  std::string text_of(std::int32_t token);
  void finish(const RequestOutput& output);

  const GenerationFields& fields_;
  const ServedModel& model_;
  std::span<const std::int32_t> visible_;
  StreamDetokenizer detokenizer_;
  StopStrings stops_;
  ChoiceDelta delta_;
  std::int64_t generated_ = 0, cached_tokens_ = 0;
  std::optional<FinishReason> finish_reason_;
  std::int32_t stop_token_id_ = -1;
};

}  // namespace bise
