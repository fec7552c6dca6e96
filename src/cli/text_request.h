// A generation request in text: from flags or a JSON object with the OpenAI API's field names, to token ids;
// and its answer from token ids back to text, with stop strings.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "cli/flags.h"
#include "engine/request.h"
#include "text/chat_template.h"
#include "text/detokenizer.h"
#include "text/stop_strings.h"
#include "text/tokenizer.h"

namespace bise {

// The sampling flags that generate and chat share. Defaults come from the checkpoint's generation_config.json
// where it has them.
struct SamplingFlags {
  std::int64_t max_tokens = 256, top_k = -1, seed = -1;
  double temperature = -1, top_p = -1, min_p = 0, repetition_penalty = 1;
  std::vector<std::string> stop;

  void declare(Flags& flags);
  // Flags given, else generation_config.json, else vLLM's defaults. `eos` stops.
  SamplingParams params(const std::filesystem::path& checkpoint, std::vector<std::int32_t> eos) const;
};

// Conversations to token ids. The chat template is loaded with the first one, so that a checkpoint without a
// template serves everything else.
class MessageEncoder {
 public:
  // `template_file` (may be empty) replaces the checkpoint's template.
  MessageEncoder(const Tokenizer& tokenizer, std::filesystem::path checkpoint,
                 std::filesystem::path template_file = {});

  // `tools` may be null. Throws Error for invalid messages, or when there is no template.
  std::vector<std::int32_t> encode(const Json& messages, const Json& tools, bool add_generation_prompt);

 private:
  const Tokenizer& tokenizer_;
  std::filesystem::path checkpoint_, template_file_;
  std::optional<ChatTemplate> template_;
};

struct TextRequest {
  GenerationRequest request;
  std::vector<std::string> stop;
};

// Reads {"prompt" | "messages" | "token_ids", max_tokens, temperature, top_p, top_k, min_p, seed, stop,
// stop_token_ids, ignore_eos, repetition_penalty, presence_penalty, frequency_penalty, min_tokens, tools};
// what the row lacks comes from `defaults`. Throws Error for an unknown field or a wrong type.
TextRequest parse_text_request(const Json& row, const std::string& where, const TextRequest& defaults,
                               const Tokenizer& tokenizer, MessageEncoder& messages);

// The text of one answer as its tokens come.
class AnswerText {
 public:
  AnswerText(const Tokenizer& tokenizer, std::vector<std::string> stop);

  // Returns the text that is certain now: what might begin a stop string is held back.
  std::string push(std::int32_t token);
  // The rest. Call once, at the end.
  std::string finish();
  // Whether a stop string came; then no more tokens are wanted, and the text ends before it.
  bool stopped() const { return stop_.matched() != nullptr; }
  const std::string& text() const { return text_; }

 private:
  StreamDetokenizer detokenizer_;
  StopStrings stop_;
  std::string text_;
};

}  // namespace bise
