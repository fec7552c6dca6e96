// The model that a server answers for, with everything a route needs to know about it. Never changes while
// serving; used from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace bise {

class TokenTrie;  // grammar/vocabulary.h

// What --tool-call-parser and --reasoning-parser name. "" = none; "mistral".
struct ChatOutputOptions {
  bool enable_auto_tool_choice = false;
  std::string tool_call_parser, reasoning_parser;
  bool exclude_tools_when_tool_choice_none = false;
  bool emit_reasoning_content = false;  // reasoning under the older name reasoning_content as well
};

// Server defaults of sampling fields that a request leaves out: generation_config.json of the checkpoint
// merged with --override-generation-config (spec/serving.md section 1.4, "Defaults chain").
struct SamplingDefaults {
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<std::int64_t> top_k, max_new_tokens;
};

struct ServedModel {
  std::vector<std::string> names;  // --served-model-name; the first stands in every reply
  std::string root;                // the checkpoint's path or hub name
  std::int64_t created = 0;        // unix seconds
  std::int64_t max_model_len = 0;
  std::int64_t vocab_size = 0;  // rows of the output matrix; the tokenizer may have fewer
  std::vector<std::int32_t> eos_token_ids;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::int64_t longest_token_bytes = 0;               // of the tokenizer; OpenAiService fills it in
  std::shared_ptr<const ChatTemplate> chat_template;  // null: chat requests get 400
  std::shared_ptr<const TokenTrie> token_trie;        // for structured output
  std::string response_role = "assistant";
  ChatOutputOptions chat_output;
  SamplingDefaults defaults;
  std::int64_t max_logprobs = 20;  // -1: no cap
  std::int64_t stream_interval = 1;
  bool trust_request_chat_template = false;
  bool enable_prompt_tokens_details = false, enable_force_include_usage = false;
  bool priority_scheduling = false;
  bool return_tokens_as_token_ids = false;
  std::string system_fingerprint;
};

}  // namespace bise
