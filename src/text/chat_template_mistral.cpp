#include "text/chat_template_mistral.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "text/chat_template_messages.h"

namespace bise {
namespace {

constexpr std::array<int, 6> kVersions = {1, 2, 3, 7, 11, 13};

// Version 1 has no control tokens but BOS and EOS: its markers are ordinary text, and its texts meet.
constexpr std::string_view kVersion1 = R"({{- bos_token }}
{%- for message in messages %}
  {%- if message.role == 'user' %}
    {{- '[INST] ' }}
    {%- if system_prompt and loop.index0 == first_user %}{{ system_prompt + '\n\n' }}{% endif %}
    {{- message.content + ' [/INST]' }}
  {%- elif message.role == 'assistant' and not message.tool_calls %}
    {{- ' ' + message.content }}
    {%- if not message.open %}{{ eos_token }}{% endif %}
  {%- else %}
    {{- raise_exception('tools are not supported by Mistral tokenizer version 1') }}
  {%- endif %}
{%- endfor %})";

// Later versions. `version` is the tokenizer's. Nothing stands between a control token and the text after it:
// the tokenizer adds SentencePiece's space itself.
constexpr std::string_view kLaterVersions = R"({{- bos_token }}
{%- macro tool_calls(calls) %}
  {%- if version < 11 %}
    {{- '[TOOL_CALLS]' + calls | tojson }}
  {%- else %}
    {%- for call in calls %}
      {{- '[TOOL_CALLS]' + call.name }}
      {%- if version == 11 and call.id is defined %}{{ '[CALL_ID]' + call.id }}{% endif %}
      {{- '[ARGS]' + call.arguments | tojson }}
    {%- endfor %}
  {%- endif %}
{%- endmacro %}
{%- for message in messages %}
  {%- if message.role == 'system' %}
    {{- '[SYSTEM_PROMPT]' + message.content + '[/SYSTEM_PROMPT]' }}
  {%- elif message.role == 'user' %}
    {%- if tools and loop.index0 == (last_user if version < 13 else first_user) %}
      {{- '[AVAILABLE_TOOLS]' + tools | tojson + '[/AVAILABLE_TOOLS]' }}
    {%- endif %}
    {{- '[INST]' }}
    {%- if system_prompt and loop.index0 == last_user %}{{ system_prompt + '\n\n' }}{% endif %}
    {{- message.content + '[/INST]' }}
  {%- elif version == 2 and loop.index0 < last_user and (message.tool_calls or message.role == 'tool') %}
    {#- version 2 forgets the tools of earlier turns #}
  {%- elif message.role == 'assistant' %}
    {{- message.content.rstrip(' ') }}
    {%- if message.tool_calls %}{{ tool_calls(message.tool_calls) }}{% endif %}
    {%- if not message.open %}{{ eos_token }}{% endif %}
  {%- elif version == 2 %}
    {{- '[TOOL_RESULTS]' + [{'name': message.name, 'content': message.content}] | tojson + '[/TOOL_RESULTS]' }}
  {%- elif version == 3 %}
    {{- '[TOOL_RESULTS]' + {'content': message.content, 'call_id': message.tool_call_id} | tojson }}
    {{- '[/TOOL_RESULTS]' }}
  {%- elif version < 13 %}
    {{- '[TOOL_RESULTS]' + message.tool_call_id + '[TOOL_CONTENT]' + message.content + '[/TOOL_RESULTS]' }}
  {%- else %}
    {{- '[TOOL_RESULTS]' + message.content + '[/TOOL_RESULTS]' }}
  {%- endif %}
{%- endfor %})";

[[noreturn]] void refuse(const std::string& what, std::size_t index) {
  throw Error("{}", what).at(fmt::format("messages[{}]", index));
}

Json json_or_text(const std::string& text) {
  if (text.empty()) return Json::object();
  Json parsed = Json::parse(text, nullptr, false);
  return parsed.is_discarded() ? Json(text) : parsed;
}

bool is_word(std::string_view text, std::string_view further, std::size_t shortest, std::size_t longest) {
  return text.size() >= shortest && text.size() <= longest &&
         std::all_of(text.begin(), text.end(), [&](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  further.find(c) != std::string_view::npos;
         });
}

std::string checked_name(const Json& holder, const std::string& where) {
  const std::string name = require_string(holder, "name", where);
  if (!is_word(name, "_-", 1, 64)) {
    throw Error("the name of a function is invalid")
        .at(where)
        .expected("1 to 64 of a-z A-Z 0-9 _ -")
        .got(name);
  }
  return name;
}

// Clients send ids of any length; Mistral's have 9 characters. Version 13 has lost them.
std::string checked_id(std::string id, int version, const std::string& where) {
  if (version >= 13) {
    if (id.empty() || id == "null") throw Error("a tool call needs an id").at(where);
    return id;
  }
  if (id.size() > 9) id.erase(0, id.size() - 9);
  if (version >= 3 && !is_word(id, "", 9, 9)) {
    throw Error("the id of a tool call is invalid").at(where).expected("9 of a-z A-Z 0-9").got(id);
  }
  return id;
}

// mistral-common's checks of roles and their order.
void check_conversation(const Json& messages, int version, bool continue_final_message) {
  std::string previous;
  std::size_t open_calls = 0;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const std::string role = messages[i]["role"].get<std::string>();
    const bool known = role == "system" || role == "user" || role == "assistant" || role == "tool";
    if (!known) refuse(fmt::format("role '{}' is not supported by this model", role), i);
    const bool follows = previous.empty()       ? messages.size() > 1 || role == "user" || role == "system"
                         : previous == "system" ? role != "tool"
                         : previous == "user"   ? role != "tool"
                                                : role != "system";
    if (!follows) refuse(fmt::format("unexpected role '{}' after role '{}'", role, previous), i);
    const Json calls = messages[i].value("tool_calls", Json());
    const bool has_calls = calls.is_array() && !calls.empty();
    if (i > 0 && role == "tool") {
      if (open_calls == 0) refuse("not the same number of function calls and responses", i);
      --open_calls;
    } else if (role == "assistant") {
      if (open_calls != 0) refuse("not the same number of function calls and responses", i);
      if (i > 0 && has_calls) open_calls = calls.size();
    }
    const bool has_content = !content_text(messages[i], "").empty();
    if (role == "assistant" && !has_content && !has_calls)
      refuse("an assistant message needs content or tool_calls", i);
    if (role == "assistant" && version < 7 && has_content && has_calls) {
      refuse("an assistant message must have content or tool_calls, not both", i);
    }
    previous = role;
  }
  if (previous == "assistant" && !continue_final_message) {
    refuse("the last message is the assistant's: expected a user or tool message, or continue_final_message",
           messages.size() - 1);
  }
  if (continue_final_message && previous != "assistant") {
    refuse("continue_final_message needs a last message of the assistant", messages.size() - 1);
  }
}

Json normalized_calls(const Json& calls, int version, const std::string& where) {
  Json result = Json::array();
  for (std::size_t i = 0; i < calls.size(); ++i) {
    const std::string call_place = fmt::format("{}.tool_calls[{}]", where, i);
    const Json& function = require(calls[i], "function", call_place);
    const Json arguments = function.value("arguments", Json());
    Json call = Json::object();
    call["name"] = checked_name(function, call_place + ".function");
    call["arguments"] = arguments.is_string() ? json_or_text(arguments.get<std::string>())
                        : arguments.is_null() ? Json::object()
                                              : arguments;
    if (version >= 3)
      call["id"] = checked_id(find_string(calls[i], "id", "", call_place), version, call_place);
    result.push_back(std::move(call));
  }
  return result;
}

Json normalized_tool_result(const Json& message, int version, const std::string& where) {
  Json result = {{"role", "tool"}};
  const std::string content = content_text(message, "\n\n");
  result["content"] = version < 7 ? json_or_text(content) : Json(content);
  result["name"] =
      message.contains("name") && !message["name"].is_null() ? Json(checked_name(message, where)) : Json();
  if (version >= 3) {
    result["tool_call_id"] = checked_id(find_string(message, "tool_call_id", "", where), version, where);
  }
  return result;
}

// From version 11 the results stand in the order of the calls.
void order_results(Json& messages, std::size_t begin, const Json& calls) {
  std::map<std::string, std::size_t> order;
  for (std::size_t i = 0; i < calls.size(); ++i) order.emplace(calls[i]["id"].get<std::string>(), i);
  std::vector<Json> results(messages.begin() + static_cast<std::ptrdiff_t>(begin), messages.end());
  const auto rank = [&](const Json& result) {
    const auto found = order.find(result["tool_call_id"].get<std::string>());
    return found == order.end() ? calls.size() : found->second;
  };
  std::stable_sort(results.begin(), results.end(),
                   [&](const Json& a, const Json& b) { return rank(a) < rank(b); });
  std::copy(results.begin(), results.end(), messages.begin() + static_cast<std::ptrdiff_t>(begin));
}

// One run of messages of the same role, [begin, end), appended to `result`.
void append_run(Json& result, const Json& messages, std::size_t begin, std::size_t end, int version) {
  const std::string role = messages[begin]["role"].get<std::string>();
  const auto place = [](std::size_t i) { return fmt::format("messages[{}]", i); };
  if (role == "system") {
    for (std::size_t i = begin; version >= 7 && i < end; ++i) {
      result.push_back(Json{{"role", role}, {"content", content_text(messages[i], "\n\n")}});
    }
  } else if (role == "tool") {
    const Json calls = result.empty() ? Json() : result.back().value("tool_calls", Json::array());
    const std::size_t first = result.size();
    for (std::size_t i = begin; i < end; ++i) {
      result.push_back(normalized_tool_result(messages[i], version, place(i)));
    }
    if (version >= 11 && calls.is_array()) order_results(result, first, calls);
  } else {
    std::string content;
    Json calls = Json::array();
    for (std::size_t i = begin; i < end; ++i) {
      const std::string text = content_text(messages[i], "\n\n");
      content += (content.empty() || text.empty() ? "" : "\n\n") + text;
      for (const Json& call :
           normalized_calls(messages[i].value("tool_calls", Json::array()), version, place(i))) {
        calls.push_back(call);
      }
    }
    if (role == "assistant" && version < 7 && !content.empty() && !calls.empty()) {
      refuse("neighbouring assistant messages have content and tool_calls", begin);
    }
    result.push_back(Json{{"role", role}, {"content", content}, {"tool_calls", calls}});
  }
}

// type, name, description and parameters, in mistral-common's order.
Json normalized_tools(const Json& tools) {
  if (tools.is_null()) return Json::array();
  if (!tools.is_array()) throw Error("tools must be a list").got(tools.type_name());
  Json result = Json::array();
  for (std::size_t i = 0; i < tools.size(); ++i) {
    const std::string where = fmt::format("tools[{}]", i);
    const Json& function = require(tools[i], "function", where);
    Json normal = {{"name", checked_name(function, where)}};
    normal["description"] = find_string(function, "description", "", where);
    const Json parameters = function.value("parameters", Json());
    normal["parameters"] = parameters.is_null() ? Json::object() : parameters;
    result.push_back(Json{{"type", "function"}, {"function", normal}});
  }
  return result;
}

std::string gathered_system_prompt(const Json& messages) {
  std::string prompt;
  for (const Json& message : messages) {
    const std::string text = message["role"] == "system" ? content_text(message, "\n\n") : "";
    if (!text.empty()) prompt += (prompt.empty() ? "" : "\n\n") + text;
  }
  return prompt;
}

// Version 2 shows one result a turn.
void check_single_results(const Json& messages, int last_user) {
  std::size_t results = 0;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    results = messages[i]["role"] == "tool" ? results + 1 : 0;
    if (static_cast<int>(i) > last_user && results > 1) {
      refuse("Mistral tokenizer version 2 does not support several tool results in one turn", i);
    }
  }
}

int parse_version(std::string_view digits, const std::string& where) {
  int version = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), version);
  const bool is_known = std::find(kVersions.begin(), kVersions.end(), version) != kVersions.end();
  if (result.ec != std::errc() || !is_known) {
    throw Error("unsupported Mistral tokenizer version 'v{}'", digits)
        .at(where)
        .expected("v1, v2, v3, v7, v11 or v13");
  }
  return version;
}

}  // namespace

std::optional<int> find_mistral_version(const std::filesystem::path& folder) {
  const std::filesystem::path tekken = folder / "tekken.json";
  if (std::filesystem::exists(tekken)) {
    const std::string where = tekken.string() + ": config";
    const std::string version =
        require_string(require(read_json_file(tekken), "config", tekken.string()), "version", where);
    return parse_version(std::string_view(version).substr(version.starts_with('v') ? 1 : 0), where);
  }
  std::optional<int> newest;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const std::size_t at = name.find("tokenizer.model.v");
    if (at != 0) continue;
    // "v7m1" is version 7 with images
    std::string_view digits = std::string_view(name).substr(17);
    digits = digits.substr(0, digits.find('m'));
    newest = std::max(newest.value_or(0), parse_version(digits, entry.path().string()));
  }
  return newest;
}

void check_mistral_version(int version) {
  parse_version(std::to_string(version), "chat template");
}

std::string_view mistral_template(int version) {
  return version == 1 ? kVersion1 : kLaterVersions;
}

Json mistral_variables(const Json& messages, const Json& tools, int version, bool continue_final_message) {
  check_conversation(messages, version, continue_final_message);
  Json result = Json::array();
  for (std::size_t begin = 0; begin < messages.size();) {
    std::size_t end = begin + 1;
    while (end < messages.size() && messages[end]["role"] == messages[begin]["role"]) ++end;
    append_run(result, messages, begin, end, version);
    begin = end;
  }
  if (result.empty() || (version < 7 && result[0]["role"] != "user")) {
    result.insert(result.begin(), Json{{"role", "user"}, {"content", ""}, {"tool_calls", Json::array()}});
  }
  int first_user = -1;
  int last_user = -1;
  for (std::size_t i = 0; i < result.size(); ++i) {
    if (result[i]["role"] != "user") continue;
    last_user = static_cast<int>(i);
    if (first_user < 0) first_user = last_user;
  }
  if (version == 2) check_single_results(result, last_user);
  if (continue_final_message) result.back()["open"] = true;
  return Json{{"version", version},
              {"messages", result},
              {"tools", normalized_tools(tools)},
              {"system_prompt", version < 7 ? gathered_system_prompt(messages) : ""},
              {"first_user", first_user},
              {"last_user", last_user}};
}

}  // namespace bise
