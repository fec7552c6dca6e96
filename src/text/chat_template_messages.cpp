#include "text/chat_template_messages.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace bise {
namespace {

std::string place(std::size_t index) {
  return fmt::format("messages[{}]", index);
}

void check_content(const Json& content, const std::string& where) {
  if (content.is_null() || content.is_string()) return;
  if (!content.is_array()) {
    throw Error("content is invalid")
        .at(where)
        .expected("a string or a list of parts")
        .got(content.type_name());
  }
  for (std::size_t i = 0; i < content.size(); ++i) {
    const std::string part_place = fmt::format("{}.content[{}]", where, i);
    const Json& part = content[i];
    if (!part.is_object())
      throw Error("a content part must be an object").at(part_place).got(part.type_name());
    const std::string type = require_string(part, "type", part_place);
    if (type != "text")
      throw Error("content of type '{}' is not supported", type).at(part_place).expected("text");
    require_string(part, "text", part_place);
  }
}

void check_tool_calls(const Json& calls, const std::string& where) {
  if (calls.is_null()) return;
  if (!calls.is_array()) throw Error("tool_calls must be a list").at(where).got(calls.type_name());
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const std::string call_place = fmt::format("{}.tool_calls[{}]", where, i);
    if (!calls[i].is_object())
      throw Error("a tool call must be an object").at(call_place).got(calls[i].type_name());
    if (!calls[i].contains("function")) continue;  // a template's own form, such as {"name", "arguments"}
    const Json& function = calls[i]["function"];
    if (!function.is_object())
      throw Error("function must be an object").at(call_place).got(function.type_name());
    require_string(function, "name", call_place + ".function");
  }
}

// OpenAI sends arguments as JSON text; templates print them as an object.
void parse_arguments(Json& message, const std::string& where) {
  const auto calls = message.find("tool_calls");
  if (calls == message.end() || !calls->is_array()) return;
  if (calls->empty()) {
    message.erase("tool_calls");
    return;
  }
  for (std::size_t i = 0; i < calls->size(); ++i) {
    Json& call = (*calls)[i];
    if (!call.contains("function")) continue;
    Json& arguments = call["function"]["arguments"];
    if (arguments.is_null()) arguments = Json::object();
    if (!arguments.is_string()) continue;
    const std::string text = arguments.get<std::string>();
    if (text.empty()) {
      arguments = Json::object();
    } else {
      arguments = parse_json(text, fmt::format("{}.tool_calls[{}].function.arguments", where, i));
    }
  }
}

// transformers' names for what the model thought: the first is the standard one, gpt-oss reads the second.
void alias_reasoning(Json& message) {
  constexpr std::array<const char*, 3> kNames = {"reasoning_content", "thinking", "reasoning"};
  for (const char* name : kNames) {
    const auto found = message.find(name);
    if (found == message.end() || found->is_null()) continue;
    const Json reasoning = *found;
    message["reasoning_content"] = reasoning;
    if (!message.contains("thinking")) message["thinking"] = reasoning;
    return;
  }
}

}  // namespace

bool is_known_role(std::string_view role) {
  constexpr std::array<std::string_view, 9> kRoles = {
      "system", "developer", "user", "assistant", "tool", "model", "function", "environment", "ipython"};
  return std::find(kRoles.begin(), kRoles.end(), role) != kRoles.end();
}

void check_messages(const Json& messages) {
  if (!messages.is_array()) throw Error("messages must be a list").got(messages.type_name());
  if (messages.empty()) throw Error("messages is empty").expected("at least one message");
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const Json& message = messages[i];
    if (!message.is_object())
      throw Error("a message must be an object").at(place(i)).got(message.type_name());
    require_string(message, "role", place(i));
    check_content(message.value("content", Json()), place(i));
    check_tool_calls(message.value("tool_calls", Json()), place(i));
  }
}

std::string content_text(const Json& message, std::string_view separator) {
  const auto content = message.find("content");
  if (content == message.end() || content->is_null()) return {};
  if (content->is_string()) return content->get<std::string>();
  std::string text;
  for (std::size_t i = 0; i < content->size(); ++i) {
    if (i > 0) text += separator;
    text += (*content)[i]["text"].get_ref<const std::string&>();
  }
  return text;
}

Json normalized_messages(const Json& messages, bool content_as_parts) {
  Json result = Json::array();
  for (std::size_t i = 0; i < messages.size(); ++i) {
    Json message = messages[i];
    const Json content = message.value("content", Json());
    if (!content_as_parts) {
      message["content"] = content_text(message, "\n");
    } else if (content.is_null()) {
      message["content"] = Json::array();
    } else if (content.is_string()) {
      message["content"] = Json::array({Json{{"type", "text"}, {"text", content}}});
    }
    parse_arguments(message, place(i));
    alias_reasoning(message);
    result.push_back(std::move(message));
  }
  return result;
}

}  // namespace bise
