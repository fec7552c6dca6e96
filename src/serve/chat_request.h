// The body of POST /v1/chat/completions, and of POST /tokenize with messages. Any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "net/http_message.h"
#include "serve/generation_fields.h"
#include "serve/served_model.h"

namespace bise {

// Whether and how the model may call tools.
struct ToolChoice {
  enum class Mode { kNone, kAuto, kRequired, kNamed };
  Mode mode = Mode::kNone;
  std::string name;  // with kNamed
  bool parallel = true;
};

// What the template makes the prompt of.
struct Conversation {
  std::shared_ptr<const Json> messages, tools;  // tools null when there are none
  std::shared_ptr<const Json> template_arguments;
  bool add_generation_prompt = true, continue_final_message = false;
  std::optional<std::string> chat_template;  // a request's own
};

struct ChatRequest {
  GenerationFields fields;
  Conversation conversation;
  ToolChoice tool_choice;
  bool logprobs = false;
  std::int64_t top_logprobs = 0;
  bool include_reasoning = true;
  std::string role;         // of the answer
  std::string echoed_text;  // with echo: the content that the answer goes on with
  std::vector<std::int32_t> prompt;
  std::string prompt_text;  // with return_prompt_text
};

// Reads messages, tools and template fields. Throws ApiError.
Conversation read_conversation(RequestReader& reader, const ServedModel& model);

// The prompt's ids. Throws ApiError when there is no template or it refuses the messages.
std::vector<std::int32_t> encode_conversation(const Conversation& conversation,
                                              const GenerationFields& fields, const ServedModel& model,
                                              std::string* prompt_text = nullptr);

// Reads, checks and tokenizes. Throws ApiError.
ChatRequest read_chat_request(const Json& body, const HttpRequest& request, const ServedModel& model);

}  // namespace bise
