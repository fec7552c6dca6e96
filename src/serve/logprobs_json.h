// Log-probabilities as the two APIs write them (spec/serving.md section 1.6). Any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "text/tokenizer.h"

namespace bise {

class LogprobsFormat {
 public:
  // `as_ids`: tokens are written "token_id:123".
  LogprobsFormat(const Tokenizer& tokenizer, bool as_ids) : tokenizer_(tokenizer), as_ids_(as_ids) {}

  // The text of one token, with U+FFFD for parts of characters.
  std::string token_text(std::int32_t token) const;

  // {"text_offset", "token_logprobs", "tokens", "top_logprobs"} of completions. `positions` stand for the
  // tokens of the same index; one whose logprob is NaN has none and is written null. The sampled token comes
  // first in its map, then the best. `offset` is where the first token begins in the text, in characters, and
  // is moved on to where the last one ends.
  void append_completion(std::string& out, std::span<const PositionLogprobs> positions,
                         std::int64_t& offset) const;
  // {"content": [...]} of chat. Each list has `top` entries (-1: all), the sampled token first.
  void append_chat(std::string& out, std::span<const PositionLogprobs> positions, std::int64_t top) const;
  // [null, {"<id>": {"logprob", "rank", "decoded_token"}}, ...]: `positions` are of the second token on.
  void append_prompt(std::string& out, std::span<const PositionLogprobs> positions) const;

 private:
  void append_token(std::string& out, std::int32_t token) const;
  void append_chat_entry(std::string& out, const TokenLogprob& entry) const;

  const Tokenizer& tokenizer_;
  bool as_ids_;
};

// The position of a token without a log-probability: the first of a prompt.
PositionLogprobs unscored(std::int32_t token);

}  // namespace bise
