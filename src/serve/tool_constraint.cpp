#include "serve/tool_constraint.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace bise {
namespace {

using Mode = ToolChoice::Mode;

// The schema of a tool's arguments. Only a strict tool's own is enforced when the model may choose.
Json parameters_of(const Json& tool, bool enforced) {
  const Json parameters = tool["function"].value("parameters", Json());
  if (enforced && parameters.is_object() && !parameters.empty()) return parameters;
  return Json{{"type", "object"}};
}

bool is_strict(const Json& tool) {
  const Json strict = tool["function"].value("strict", Json());
  return strict.is_boolean() && strict.get<bool>();
}

// [{"name": ..., "<arguments>": {...}}, ...]
Json array_schema(const std::vector<const Json*>& tools, const char* arguments, const ToolChoice& choice) {
  Json calls = Json::array();
  for (const Json* tool : tools) {
    Json call = {{"type", "object"}, {"required", {"name", arguments}}, {"additionalProperties", false}};
    call["properties"]["name"] = {{"const", (*tool)["function"]["name"]}};
    call["properties"][arguments] = parameters_of(*tool, choice.mode != Mode::kAuto || is_strict(*tool));
    calls.push_back(std::move(call));
  }
  Json schema = {{"type", "array"}, {"minItems", 1}, {"items", {{"anyOf", calls}}}};
  if (!choice.parallel) schema["maxItems"] = 1;
  return schema;
}

// Lark grammars in which <[NAME]> is a control token. Free text holds none, so a mark ends it.
std::string lark_grammar(const std::vector<const Json*>& tools, bool named_form, const ToolChoice& choice) {
  const bool free = choice.mode == Mode::kAuto;
  const std::string calls = !named_form || !choice.parallel ? "call" : "call+";
  std::string text = free ? fmt::format("start: FREE_TEXT | FREE_TEXT? {}\nFREE_TEXT: /(.|\\n)+/\n", calls)
                          : fmt::format("start: {}\n", calls);
  if (!named_form) {
    return text + fmt::format("call: <[TOOL_CALLS]> array\narray: %json {}\n",
                              json_text(array_schema(tools, "arguments", choice)));
  }
  std::string alternatives, rules;
  for (std::size_t i = 0; i < tools.size(); ++i) {
    const Json& tool = *tools[i];
    alternatives +=
        fmt::format("{}{} <[ARGS]> arguments_{}", i > 0 ? " | " : "", json_text(tool["function"]["name"]), i);
    rules +=
        fmt::format("arguments_{}: %json {}\n", i, json_text(parameters_of(tool, !free || is_strict(tool))));
  }
  return text + fmt::format("call: <[TOOL_CALLS]> ({})\n{}", alternatives, rules);
}

}  // namespace

std::optional<ToolConstraint> tool_constraint(const ChatRequest& request, const ChatParsing& parsing,
                                              const ServedModel& model) {
  const ToolChoice& choice = request.tool_choice;
  if (choice.mode == Mode::kNone) return std::nullopt;
  std::vector<const Json*> tools;
  bool any_strict = false;
  for (const Json& tool : *request.conversation.tools) {
    if (choice.mode == Mode::kNamed && tool["function"]["name"] != choice.name) continue;
    tools.push_back(&tool);
    any_strict = any_strict || is_strict(tool);
  }
  if (choice.mode == Mode::kAuto && !any_strict) return std::nullopt;

  ToolConstraint result;
  result.spec.param = choice.mode == Mode::kAuto ? "tools" : "tool_choice";
  result.spec.kind = ConstraintSpec::Kind::kJsonSchema;
  if (parsing.tools == ToolParser::Form::kArguments) {
    result.spec.text = json_text(parameters_of(*tools.front(), true));
    return result;
  }
  if (parsing.tools == ToolParser::Form::kArray) {
    result.spec.text = json_text(array_schema(tools, "parameters", choice));
    return result;
  }
  const auto mark = model.tokenizer->id_of("[TOOL_CALLS]");
  if (!mark) return std::nullopt;  // the model's calls are plain text
  const bool named_form = model.tokenizer->id_of("[ARGS]").has_value();
  ToolChoice calls = choice;
  calls.parallel = choice.parallel && choice.mode != Mode::kNamed;
  if (choice.mode != Mode::kAuto && !named_form) {
    result.prefix = {*mark};
    result.spec.text = json_text(array_schema(tools, "arguments", calls));
  } else {
    result.spec.kind = ConstraintSpec::Kind::kGrammar;
    result.spec.text = lark_grammar(tools, named_form, calls);
  }
  return result;
}

}  // namespace bise
