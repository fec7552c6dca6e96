#include "serve/chat_answer.h"

#include <algorithm>

#include "serve/json_text.h"

namespace bise {
namespace {

void append_optional(std::string& out, const std::string& text, bool present) {
  if (present) {
    append_json_string(out, text);
  } else {
    out += "null";
  }
}

// Whether the prompt ends inside a thought: its last opening mark is not closed.
bool opens_thought(const std::vector<std::int32_t>& prompt, const Tokenizer& tokenizer) {
  const auto start = tokenizer.id_of("[THINK]"), end = tokenizer.id_of("[/THINK]");
  if (start && end) {
    for (auto token = prompt.rbegin(); token != prompt.rend(); ++token)
      if (*token == *start || *token == *end) return *token == *start;
  }
  constexpr std::size_t kTail = 8;
  const std::span<const std::int32_t> all(prompt);
  std::string tail = tokenizer.decode(all.last(std::min(kTail, all.size())), false);
  tail.erase(std::min(tail.find_last_not_of(" \n") + 1, tail.size()));
  return tail.ends_with("<think>");
}

}  // namespace

ChatParsing chat_parsing(const ChatRequest& request, const ServedModel& model) {
  ChatParsing parsing;
  const Tokenizer& tokenizer = *model.tokenizer;
  const auto show = [&](const char* name) {
    if (const auto id = tokenizer.id_of(name)) parsing.visible.push_back(*id);
  };
  if (!model.chat_output.reasoning_parser.empty()) {
    parsing.reasoning = true;
    parsing.thinking = opens_thought(request.prompt, tokenizer);
    for (const char* name : {"[THINK]", "[/THINK]", "<think>", "</think>"}) show(name);
  }
  using Mode = ToolChoice::Mode;
  const Mode mode = request.tool_choice.mode;
  if (mode == Mode::kNone) return parsing;
  const bool marked = !model.chat_output.tool_call_parser.empty() && tokenizer.id_of("[TOOL_CALLS]");
  parsing.tools = marked || mode == Mode::kAuto ? ToolParser::Form::kMarked
                  : mode == Mode::kRequired     ? ToolParser::Form::kArray
                                                : ToolParser::Form::kArguments;
  for (const char* name : {"[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"}) show(name);
  return parsing;
}

ChatAnswer::ChatAnswer(const ChatRequest& request, const ChatParsing& parsing, std::int64_t created,
                       const ServedModel& model)
    : Answer("chatcmpl-" + request.fields.request_id, "chat.completion", "chat.completion.chunk", created,
             request.fields, model),
      request_(request),
      parsing_(parsing),
      splitters_(static_cast<std::size_t>(request.fields.n)) {
  for (Splitter& splitter : splitters_) {
    if (parsing.reasoning) splitter.reasoning.emplace(parsing.thinking);
    if (parsing.tools) splitter.tools.emplace(*parsing.tools, request.tool_choice.name);
  }
}

ChatAnswer::Parts ChatAnswer::split(Splitter& splitter, const std::string& text, bool ends) const {
  Parts parts;
  std::string answer;
  if (splitter.reasoning) {
    splitter.reasoning->push(text, parts.reasoning, answer);
    if (ends) splitter.reasoning->finish(parts.reasoning, answer);
    if (!request_.include_reasoning) parts.reasoning.clear();
  }
  const std::string& spoken = splitter.reasoning ? answer : text;
  if (splitter.tools) {
    splitter.tools->push(spoken, parts.content, parts.calls);
    if (ends) splitter.tools->finish(parts.content, parts.calls);
    // The model may write several calls all the same: only the first is wanted.
    if (!request_.tool_choice.parallel)
      std::erase_if(parts.calls, [](const ToolCallPiece& call) { return call.index > 0; });
  } else {
    parts.content = spoken;
  }
  return parts;
}

std::string_view ChatAnswer::finish_reason(const Splitter& splitter, const ChoiceStream& choice) const {
  const bool called =
      splitter.tools && splitter.tools->calls() > 0 && request_.tool_choice.mode != ToolChoice::Mode::kNamed;
  if (called && *choice.finish_reason() == FinishReason::kStop) return "tool_calls";
  return finish_reason_text(*choice.finish_reason());
}

void ChatAnswer::append_start(std::string& out) {
  for (std::size_t index = 0; index < splitters_.size(); ++index) {
    begin_frame(out, index);
    out += R"(,"delta":{"role":)";
    append_json_string(out, request_.role);
    out += R"(,"content":""},"logprobs":null,"finish_reason":null)";
    end_frame(out, prompt_tokens(), 0, false);
    if (index == 0 && (fields_.return_token_ids || fields_.return_prompt_text)) {
      // They stand beside "choices".
      out.resize(out.size() - 3);
      if (fields_.return_token_ids) {
        out += R"(,"prompt_token_ids":)";
        append_array(out, request_.prompt);
      }
      if (fields_.return_prompt_text) {
        out += R"(,"prompt_text":)";
        append_json_string(out, request_.prompt_text);
      }
      out += "}\n\n";
    }
  }
  if (request_.echoed_text.empty()) return;
  for (std::size_t index = 0; index < splitters_.size(); ++index) {
    begin_frame(out, index);
    out += R"(,"delta":{"content":)";
    append_json_string(out, request_.echoed_text);
    out += R"(},"logprobs":null,"finish_reason":null)";
    end_frame(out, prompt_tokens(), 0, false);
  }
}

// The members of a delta.
void ChatAnswer::append_parts(std::string& out, const Parts& parts) const {
  const char* comma = "";
  const auto add = [&](const char* name, const std::string& text) {
    if (text.empty()) return;
    out += comma;
    out += name;
    append_json_escaped(out, text);
    out += '"';
    comma = ",";
  };
  add(R"("reasoning":")", parts.reasoning);
  if (model_.chat_output.emit_reasoning_content) add(R"("reasoning_content":")", parts.reasoning);
  add(R"("content":")", parts.content);
  if (parts.calls.empty()) return;
  out += comma;
  out += R"("tool_calls":[)";
  comma = "";
  for (const ToolCallPiece& call : parts.calls) {
    out += comma;
    comma = ",";
    out += R"({"index":)";
    append_number(out, static_cast<std::int64_t>(call.index));
    if (!call.id.empty()) {
      out += R"(,"id":)";
      append_json_string(out, call.id);
      out += R"(,"type":"function")";
    }
    out += R"(,"function":{)";
    if (!call.id.empty()) {
      out += R"("name":)";
      append_json_string(out, call.name);
      out += ',';
    }
    out += R"("arguments":)";
    append_json_string(out, call.arguments);
    out += "}}";
  }
  out += ']';
}

void ChatAnswer::append_logprobs(std::string& out, const ChoiceDelta& delta) const {
  out += R"(,"logprobs":)";
  if (request_.logprobs && !hides_tokens() && delta.tokens > 0) {
    logprobs_.append_chat(out, delta.logprobs, request_.top_logprobs);
  } else {
    out += "null";
  }
}

void ChatAnswer::append_ids(std::string& out, const ChoiceDelta& delta) const {
  if (!fields_.return_token_ids || hides_tokens()) return;
  out += R"(,"token_ids":)";
  append_array(out, delta.token_ids);
}

void ChatAnswer::append_delta(std::size_t index, ChoiceStream& choice, std::string& out) {
  ChoiceDelta& delta = choice.delta();
  const bool ends = choice.finish_reason().has_value();
  const Parts parts = split(splitters_[index], delta.text, ends);
  delta.text.clear();
  const bool has_tokens =
      !hides_tokens() && (!delta.logprobs.empty() || (fields_.return_token_ids && !delta.token_ids.empty()));
  if (!parts.empty() || (has_tokens && !ends)) {
    begin_frame(out, index);
    out += R"(,"delta":{)";
    append_parts(out, parts);
    out += '}';
    append_logprobs(out, delta);
    out += R"(,"finish_reason":null)";
    append_ids(out, delta);
    end_frame(out, prompt_tokens(), choice.generated(), false);
    delta = {};
  }
  if (ends) {
    // A chunk of its own: clients stumble over text in the chunk with the finish reason.
    begin_frame(out, index);
    out += R"(,"delta":{})";
    append_logprobs(out, delta);
    out += ',';
    append_finish(out, finish_reason(splitters_[index], choice), choice);
    append_ids(out, delta);
    end_frame(out, prompt_tokens(), choice.generated(), true);
  }
  delta = {};
}

void ChatAnswer::append_message(std::string& out, const Parts& parts) const {
  // An answer that only thinks or calls tools has no content; one that says nothing has an empty one.
  const bool has_content = !parts.content.empty() || (parts.calls.empty() && parts.reasoning.empty());
  out += R"("message":{"role":)";
  append_json_string(out, request_.role);
  out += R"(,"content":)";
  append_optional(out, request_.echoed_text + parts.content, has_content || !request_.echoed_text.empty());
  out += R"(,"refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":)";
  append_optional(out, parts.reasoning, !parts.reasoning.empty());
  if (model_.chat_output.emit_reasoning_content) {
    out += R"(,"reasoning_content":)";
    append_optional(out, parts.reasoning, !parts.reasoning.empty());
  }
  if (!parts.calls.empty()) {
    out += R"(,"tool_calls":[)";
    for (std::size_t i = 0; i < parts.calls.size(); ++i) {
      const ToolCallPiece& call = parts.calls[i];
      if (i > 0) out += ',';
      out += R"({"id":)";
      append_json_string(out, call.id);
      out += R"(,"type":"function","function":{"name":)";
      append_json_string(out, call.name);
      out += R"(,"arguments":)";
      append_json_string(out, call.arguments);
      out += "}}";
    }
    out += ']';
  }
  out += '}';
}

std::string ChatAnswer::whole(std::vector<ChoiceStream>& choices, const Usage& usage) {
  std::string out = begin_whole() + R"(,"choices":[)";
  std::string prompt_logprobs = "null";
  for (std::size_t index = 0; index < choices.size(); ++index) {
    ChoiceDelta& delta = choices[index].delta();
    if (index == 0 && fields_.show_prompt_logprobs) {
      prompt_logprobs.clear();
      logprobs_.append_prompt(prompt_logprobs, delta.prompt_logprobs);
    }
    if (index > 0) out += ',';
    out += R"({"index":)";
    append_number(out, static_cast<std::int64_t>(index));
    out += ',';
    append_message(out, split(splitters_[index], delta.text, true));
    const std::string_view reason = finish_reason(splitters_[index], choices[index]);
    append_logprobs(out, delta);
    out += ',';
    append_finish(out, reason, choices[index]);
    if (fields_.return_token_ids && !hides_tokens()) {
      append_ids(out, delta);
    } else {
      out += R"(,"token_ids":null)";
    }
    out += '}';
    delta = {};
  }
  out += R"(],"service_tier":null,"system_fingerprint":)";
  append_optional(out, model_.system_fingerprint, !model_.system_fingerprint.empty());
  out += ',';
  append_usage(out, usage, true);
  out += R"(,"prompt_logprobs":)" + prompt_logprobs + R"(,"prompt_token_ids":)";
  if (fields_.return_token_ids) {
    append_array(out, request_.prompt);
  } else {
    out += "null";
  }
  if (fields_.return_prompt_text) {
    out += R"(,"prompt_text":)";
    append_json_string(out, request_.prompt_text);
  }
  return out += R"(,"kv_transfer_params":null})";
}

}  // namespace bise
