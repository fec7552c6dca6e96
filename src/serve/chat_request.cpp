#include "serve/chat_request.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "serve/api_error.h"
#include "serve/json_text.h"
#include "serve/prompt_limits.h"
#include "serve/sampling_fields.h"
#include "text/chat_template_messages.h"

namespace bise {
namespace {

constexpr std::size_t kToolCallIdLength = 9;

// A message in the form that templates know: "developer" is OpenAI's newer word for system, parts may be bare
// strings, and Mistral's templates want ids of nine characters.
Json normal_message(const Json& message, bool cut_ids) {
  Json result = message;
  if (result.value("role", Json()) == "developer") result["role"] = "system";
  if (const auto content = result.find("content"); content != result.end() && content->is_array())
    for (Json& part : *content)
      if (part.is_string()) part = Json{{"type", "text"}, {"text", part}};
  if (!cut_ids) return result;
  const auto cut = [](Json& holder, const char* key) {
    const auto found = holder.find(key);
    if (found == holder.end() || !found->is_string()) return;
    const std::string id = found->get<std::string>();
    if (id.size() > kToolCallIdLength) *found = id.substr(id.size() - kToolCallIdLength);
  };
  cut(result, "tool_call_id");
  if (const auto calls = result.find("tool_calls"); calls != result.end() && calls->is_array())
    for (Json& call : *calls)
      if (call.is_object()) cut(call, "id");
  return result;
}

void read_messages(RequestReader& reader, const ServedModel& model, Conversation& conversation) {
  const Json* messages = reader.array("messages");
  if (!messages) {
    if (!reader.any("messages")) reader.problems().add(reader.location("messages"), "Field required");
    return;
  }
  if (messages->empty()) throw bad_request("messages must not be empty.", "messages");
  const bool cut_ids = model.chat_output.tool_call_parser == "mistral";
  Json normal = Json::array();
  for (std::size_t i = 0; i < messages->size(); ++i) {
    const Json& message = (*messages)[i];
    const std::string place = fmt::format("{}.{}", reader.location("messages"), i);
    if (!message.is_object()) {
      reader.problems().add(place, "Input should be an object", message);
      continue;
    }
    const auto role = message.find("role");
    if (role == message.end()) {
      reader.problems().add(place + ".role", "Field required");
    } else if (!role->is_string() || !is_known_role(role->get_ref<const std::string&>())) {
      reader.problems().add(place + ".role",
                            "Input should be 'system', 'developer', 'user', 'assistant' or 'tool'", *role);
    } else {
      normal.push_back(normal_message(message, cut_ids));
    }
  }
  conversation.messages = std::make_shared<const Json>(std::move(normal));
}

void read_tools(RequestReader& reader, Conversation& conversation) {
  const Json* tools = reader.array("tools");
  if (!tools) return;
  if (tools->empty())
    throw bad_request(
        "`tools` must not be an empty array. Either provide at least one tool or omit the field "
        "entirely. (parameter=tools)",
        "tools");
  for (std::size_t i = 0; i < tools->size(); ++i) {
    const Json& tool = (*tools)[i];
    const std::string place = fmt::format("{}.{}", reader.location("tools"), i);
    const auto function = tool.is_object() ? tool.find("function") : tool.end();
    if (!tool.is_object() || function == tool.end() || !function->is_object()) {
      reader.problems().add(place + ".function", "Input should be an object", tool);
      continue;
    }
    const auto name = function->find("name");
    if (name == function->end() || !name->is_string() || name->get_ref<const std::string&>().empty())
      reader.problems().add(place + ".function.name", "Input should be a valid string", *function);
    const auto parameters = function->find("parameters");
    if (parameters != function->end() && !parameters->is_object() && !parameters->is_null())
      reader.problems().add(place + ".function.parameters", "Input should be an object", *parameters);
  }
  conversation.tools = std::make_shared<const Json>(*tools);
}

void read_template_fields(RequestReader& reader, const ServedModel& model, Conversation& conversation) {
  Json arguments = Json::object();
  if (const Json* given = reader.object("chat_template_kwargs")) arguments = *given;
  if (const auto effort = reader.string("reasoning_effort");
      effort && !arguments.contains("reasoning_effort"))
    arguments["reasoning_effort"] = *effort;
  if (const Json* documents = reader.array("documents"); documents && !arguments.contains("documents"))
    arguments["documents"] = *documents;
  conversation.template_arguments = std::make_shared<const Json>(std::move(arguments));
  const auto add = reader.boolean("add_generation_prompt");
  conversation.continue_final_message = reader.boolean("continue_final_message").value_or(false);
  if (conversation.continue_final_message && add.value_or(false))
    throw bad_request("Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
                      "continue_final_message");
  conversation.add_generation_prompt = add.value_or(!conversation.continue_final_message);
  conversation.chat_template = reader.string("chat_template");
  if (conversation.chat_template && !model.trust_request_chat_template)
    throw bad_request(
        "Chat template is passed with request, but --trust-request-chat-template is not set. "
        "Refused request with untrusted chat template.",
        "chat_template");
}

bool has_tool(const Json& tools, const std::string& name) {
  for (const Json& tool : tools)
    if (tool["function"].value("name", "") == name) return true;
  return false;
}

ToolChoice read_tool_choice(RequestReader& reader, const Conversation& conversation,
                            const ServedModel& model) {
  ToolChoice choice;
  choice.parallel = reader.boolean("parallel_tool_calls").value_or(true);
  const Json* given = reader.any("tool_choice");
  if (!given) {
    if (conversation.tools) choice.mode = ToolChoice::Mode::kAuto;
  } else if (*given == "none") {
    return choice;
  } else if (!conversation.tools) {
    throw bad_request("When using `tool_choice`, `tools` must be set. (parameter=tool_choice)",
                      "tool_choice");
  } else if (*given == "auto") {
    choice.mode = ToolChoice::Mode::kAuto;
  } else if (*given == "required") {
    choice.mode = ToolChoice::Mode::kRequired;
  } else if (given->is_object()) {
    const Json function = given->value("function", Json());
    const Json name = function.is_object() ? function.value("name", Json()) : Json();
    if (!name.is_string() || name.get_ref<const std::string&>().empty())
      throw bad_request(
          "Expected field `name` in `function` in `tool_choice`! Correct usage: `{\"type\": "
          "\"function\", \"function\": {\"name\": \"my_function\"}}`",
          "tool_choice.function.name");
    choice.mode = ToolChoice::Mode::kNamed;
    choice.name = name.get<std::string>();
    if (!has_tool(*conversation.tools, choice.name))
      throw bad_request(
          "The tool specified in `tool_choice` does not match any of the specified `tools` "
          "(parameter=tool_choice)",
          "tool_choice");
  } else {
    throw bad_request(
        fmt::format("Invalid value for `tool_choice`: {}! Only named tools, \"none\", \"auto\" or "
                    "\"required\" are supported. (parameter=tool_choice)",
                    json_text(*given).substr(0, 100)),
        "tool_choice");
  }
  const ChatOutputOptions& output = model.chat_output;
  if (choice.mode == ToolChoice::Mode::kAuto &&
      (!output.enable_auto_tool_choice || output.tool_call_parser.empty()))
    throw bad_request(
        "\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set",
        "tool_choice");
  return choice;
}

void read_chat_logprobs(RequestReader& reader, const ServedModel& model, ChatRequest& request) {
  SamplingParams& sampling = request.fields.sampling;
  request.logprobs = reader.boolean("logprobs").value_or(false);
  request.top_logprobs = reader.integer("top_logprobs").value_or(0);
  if (request.top_logprobs != 0 && !request.logprobs && request.top_logprobs >= -1)
    throw bad_request("when using `top_logprobs`, `logprobs` must be set to true. (parameter=top_logprobs)",
                      "top_logprobs");
  if (!sampling.logprob_token_ids.empty() && !request.logprobs)
    throw bad_request(
        "when using `logprob_token_ids`, `logprobs` must be set to true. "
        "(parameter=logprob_token_ids)",
        "logprob_token_ids");
  check_logprobs(request.top_logprobs, "sample", "top_logprobs", model);
  if (!request.logprobs) return;
  sampling.logprobs = request.top_logprobs;
  // Ids asked for by name are all shown.
  if (!sampling.logprob_token_ids.empty()) request.top_logprobs = -1;
}

// The last message's text, if the answer goes on in its role.
std::string echoed_text(const Conversation& conversation, const std::string& role) {
  const Json& last = conversation.messages->back();
  return last["role"] == role ? content_text(last, "\n") : std::string();
}

std::shared_ptr<const ChatTemplate> requested_template(const std::string& source, const ServedModel& model) {
  Json tokens = Json::object();
  const Tokenizer& tokenizer = *model.tokenizer;
  if (const auto bos = tokenizer.bos_token_id()) tokens["bos_token"] = tokenizer.token_bytes(*bos);
  if (const auto eos = tokenizer.eos_token_id()) tokens["eos_token"] = tokenizer.token_bytes(*eos);
  return std::make_shared<const ChatTemplate>(ChatTemplate::from_source(source, "chat_template", tokens));
}

}  // namespace

Conversation read_conversation(RequestReader& reader, const ServedModel& model) {
  Conversation conversation;
  read_messages(reader, model, conversation);
  read_tools(reader, conversation);
  read_template_fields(reader, model, conversation);
  return conversation;
}

std::vector<std::int32_t> encode_conversation(const Conversation& conversation,
                                              const GenerationFields& fields, const ServedModel& model,
                                              std::string* prompt_text) {
  try {
    const auto chat_template = conversation.chat_template
                                   ? requested_template(*conversation.chat_template, model)
                                   : model.chat_template;
    if (!chat_template)
      throw bad_request("The model has no chat template: give one with --chat-template.", "messages");
    ChatOptions options;
    options.add_generation_prompt = conversation.add_generation_prompt;
    options.continue_final_message = conversation.continue_final_message;
    options.template_arguments = conversation.template_arguments.get();
    const auto segments = chat_template->render(*conversation.messages,
                                                conversation.tools ? *conversation.tools : Json(), options);
    std::size_t bytes = 0;
    for (const TextSegment& segment : segments) bytes += segment.text.size();
    check_text_length(bytes, fields, model);
    auto ids = model.tokenizer->encode_segments(segments, fields.add_special_tokens);
    truncate_prompt(fields, model, ids);
    if (ids.empty()) throw bad_request("The prompt cannot be empty", "messages");
    if (prompt_text)
      for (const TextSegment& segment : segments) *prompt_text += segment.text;
    return ids;
  } catch (const Error& error) {
    throw bad_request(error.what(), "messages");
  }
}

ChatRequest read_chat_request(const Json& body, const HttpRequest& http, const ServedModel& model) {
  Problems problems;
  RequestReader reader(body, "body", problems);
  ChatRequest request;
  check_model(reader, model);
  for (const char* name : {"max_completion_tokens", "top_logprobs"}) reader.integer(name);
  for (const char* name : {"logprobs", "include_reasoning", "parallel_tool_calls", "add_special_tokens"})
    reader.boolean(name);
  request.conversation = read_conversation(reader, model);
  GenerationFields& fields = request.fields;
  fields = read_generation_fields(reader, http, model);
  fields.add_special_tokens = reader.boolean("add_special_tokens").value_or(false);
  request.tool_choice = read_tool_choice(reader, request.conversation, model);
  if (request.tool_choice.mode == ToolChoice::Mode::kNone &&
      model.chat_output.exclude_tools_when_tool_choice_none)
    request.conversation.tools = nullptr;
  read_chat_logprobs(reader, model, request);
  fields.max_tokens = reader.integer("max_completion_tokens");
  if (fields.max_tokens) {
    check_max_tokens(*fields.max_tokens, "max_completion_tokens", 1, model);
  } else if ((fields.max_tokens = reader.integer("max_tokens"))) {
    check_max_tokens(*fields.max_tokens, "max_tokens", 1, model);
  }
  request.include_reasoning = reader.boolean("include_reasoning").value_or(true);
  const Conversation& conversation = request.conversation;
  request.role = conversation.add_generation_prompt
                     ? model.response_role
                     : conversation.messages->back()["role"].get<std::string>();
  if (fields.echo) request.echoed_text = echoed_text(conversation, request.role);
  request.prompt = encode_conversation(conversation, fields, model,
                                       fields.return_prompt_text ? &request.prompt_text : nullptr);
  return request;
}

}  // namespace bise
