// The answer of /v1/chat/completions: text is split into reasoning, content and tool calls.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "serve/answer.h"
#include "serve/chat_request.h"
#include "serve/reasoning_parser.h"
#include "serve/tool_parser.h"

namespace bise {

// How the text of a chat answer is to be read.
struct ChatParsing {
  bool reasoning = false, thinking = false;  // thoughts are split off; the prompt has opened one
  std::optional<ToolParser::Form> tools;
  std::vector<std::int32_t> visible;  // control tokens that the parsers look for
};

// What the model and the request ask for.
ChatParsing chat_parsing(const ChatRequest& request, const ServedModel& model);

class ChatAnswer : public Answer {
 public:
  // `request` outlives the answer.
  ChatAnswer(const ChatRequest& request, const ChatParsing& parsing, std::int64_t created,
             const ServedModel& model);

  void append_start(std::string& out) override;
  void append_delta(std::size_t index, ChoiceStream& choice, std::string& out) override;
  std::string whole(std::vector<ChoiceStream>& choices, const Usage& usage) override;

 private:
  struct Parts {
    std::string reasoning, content;
    std::vector<ToolCallPiece> calls;
    bool empty() const { return reasoning.empty() && content.empty() && calls.empty(); }
  };
  // One choice's parsers.
  struct Splitter {
    std::optional<ReasoningParser> reasoning;
    std::optional<ToolParser> tools;
  };
  Parts split(Splitter& splitter, const std::string& text, bool ends) const;
  std::string_view finish_reason(const Splitter& splitter, const ChoiceStream& choice) const;
  void append_parts(std::string& out, const Parts& parts) const;
  void append_message(std::string& out, const Parts& parts) const;
  // `,"logprobs":...`
  void append_logprobs(std::string& out, const ChoiceDelta& delta) const;
  // `,"token_ids":...`, when asked for
  void append_ids(std::string& out, const ChoiceDelta& delta) const;
  // Whether ids and logprobs would tell what the request wants hidden.
  bool hides_tokens() const { return !request_.include_reasoning && parsing_.reasoning; }
  std::int64_t prompt_tokens() const { return static_cast<std::int64_t>(request_.prompt.size()); }

  const ChatRequest& request_;
  ChatParsing parsing_;
  std::vector<Splitter> splitters_;  // by choice
};

}  // namespace bise
