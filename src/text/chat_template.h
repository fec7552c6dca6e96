// How a conversation becomes a prompt: the Jinja template of a Hugging Face checkpoint, as transformers and
// vLLM render it, or, for a Mistral-native folder without one, the instruct format of its tokenizer version,
// as mistral-common builds it. A ChatTemplate never changes once loaded and may be used from any thread.
//
// Security: the result is a list of segments. Only what the template itself says is trusted; Tokenizer::
// encode_segments finds control tokens in trusted text alone, so that no message can hold one. A role is the
// one exception: a role of the fixed list in chat_template_messages.h counts as the template's own word,
// since some templates make a control token of it ('<|' + role + '|>').
#pragma once

#include <ctime>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "text/segment.h"

namespace bise {

struct ChatOptions {
  bool add_generation_prompt = true;
  // The last message, of the assistant, is left open for the model to go on with.
  bool continue_final_message = false;
  // An object of further variables for the template (chat_template_kwargs), or null. Untrusted.
  const Json* template_arguments = nullptr;
  // What strftime_now formats.
  std::time_t now = std::time(nullptr);
};

class ChatTemplate {
 public:
  // What a template wants a message's content to be: one string, or a list of {"type": "text", "text": ...}.
  // Content given in the other form is converted, as vLLM does.
  enum class ContentFormat { kString, kParts };

  // The template of a checkpoint: `override_file` when given, else chat_template.jinja (and the further
  // templates in additional_chat_templates/), else "chat_template" of tokenizer_config.json (one string, or a
  // list of named ones of which "tool_use" serves requests with tools and "default" the others), else the
  // Mistral format of tekken.json or tokenizer.model.v*. Throws Error, saying what was looked for, when there
  // is none.
  static ChatTemplate load(const std::filesystem::path& folder,
                           const std::filesystem::path& override_file = {});
  // A template given as text; `special_tokens` is an object such as {"bos_token": "<s>", "eos_token":
  // "</s>"}, whose strings are trusted variables.
  static ChatTemplate from_source(std::string_view source, const std::string& name,
                                  const Json& special_tokens);
  // mistral-common's instruct format of tokenizer version 1, 2, 3, 7, 11 or 13.
  static ChatTemplate mistral(int version);

  // `messages` is the array of an OpenAI chat request, `tools` its array of tools or null. Throws Error
  // naming the message and key of what is invalid, or with what the template raises.
  std::vector<TextSegment> render(const Json& messages, const Json& tools,
                                  const ChatOptions& options = {}) const;

  ContentFormat content_format() const;

 private:
  struct Parts;
  explicit ChatTemplate(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}
  std::shared_ptr<const Parts> parts_;
};

}  // namespace bise
