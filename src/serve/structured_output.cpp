#include "serve/structured_output.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "grammar/grammar.h"
#include "serve/api_error.h"
#include "serve/grammar_constraint.h"

namespace bise {
namespace {

// Masks worth computing before the first token, without keeping the worker from others.
constexpr double kPrepareSeconds = 0.05;

std::optional<ConstraintSpec> read_response_format(RequestReader& reader) {
  const Json* format = reader.object("response_format");
  if (!format) return std::nullopt;
  RequestReader inner(*format, reader.location("response_format"), reader.problems());
  const std::string type = inner.string("type").value_or("");
  ConstraintSpec spec;
  spec.param = "response_format";
  if (type == "text") return std::nullopt;
  if (type == "json_object") return spec;
  if (type == "json_schema") {
    const Json* holder = inner.object("json_schema");
    reader.problems().throw_if_any();
    if (!holder)
      throw bad_request(
          "When response_format type is 'json_schema', the 'json_schema' field must be provided. "
          "(parameter=response_format)",
          "response_format");
    RequestReader schema(*holder, inner.location("json_schema"), reader.problems());
    schema.string("name");
    schema.boolean("strict");
    if (const Json* value = schema.any("schema")) {
      spec.kind = ConstraintSpec::Kind::kJsonSchema;
      spec.text = json_text(*value);
    }
    return spec;
  }
  if (type == "structural_tag") {
    spec.kind = ConstraintSpec::Kind::kStructuralTag;
    spec.text = json_text(*format);
    return spec;
  }
  reader.problems().add(inner.location("type"),
                        "Input should be 'text', 'json_object', 'json_schema' or 'structural_tag'",
                        format->value("type", Json()));
  return std::nullopt;
}

std::optional<ConstraintSpec> read_structured_outputs(RequestReader& reader) {
  const Json* object = reader.object("structured_outputs");
  if (!object) return std::nullopt;
  using Kind = ConstraintSpec::Kind;
  RequestReader inner(*object, reader.location("structured_outputs"), reader.problems());
  ConstraintSpec spec;
  spec.param = "structured_outputs";
  int given = 0;
  const auto set = [&](Kind kind, std::optional<std::string> text) {
    if (!text) return;
    ++given;
    spec.kind = kind;
    spec.text = std::move(*text);
  };
  if (const Json* schema = inner.any("json"))
    set(Kind::kJsonSchema, schema->is_string() ? schema->get<std::string>() : json_text(*schema));
  set(Kind::kRegex, inner.string("regex"));
  set(Kind::kGrammar, inner.string("grammar"));
  if (const Json* tag = inner.any("structural_tag"))
    set(Kind::kStructuralTag, tag->is_string() ? tag->get<std::string>() : json_text(*tag));
  if (auto choices = inner.strings("choice")) {
    set(Kind::kChoice, "");
    spec.choices = std::move(*choices);
  }
  if (const auto json_object = inner.boolean("json_object")) {
    ++given;
    if (*json_object) spec.kind = Kind::kJsonObject;
  }
  spec.any_whitespace = !inner.boolean("disable_any_whitespace").value_or(false);
  reader.problems().throw_if_any();
  if (given != 1)
    throw bad_request(given > 1
                          ? "You can only use one kind of structured outputs constraint but multiple are "
                            "specified. (parameter=structured_outputs)"
                          : "You must use one kind of structured outputs constraint but none are "
                            "specified. (parameter=structured_outputs)",
                      "structured_outputs");
  return spec;
}

GrammarPtr compile(const ConstraintSpec& spec) {
  JsonSchemaOptions options;
  options.any_whitespace = spec.any_whitespace;
  switch (spec.kind) {
    case ConstraintSpec::Kind::kJsonObject: return compile_json_object(options);
    case ConstraintSpec::Kind::kJsonSchema: return compile_json_schema(std::string_view(spec.text), options);
    case ConstraintSpec::Kind::kRegex: return compile_regex(spec.text);
    case ConstraintSpec::Kind::kChoice: return compile_choice(spec.choices);
    case ConstraintSpec::Kind::kGrammar: return compile_ebnf(spec.text);
    case ConstraintSpec::Kind::kStructuralTag:
      return compile_structural_tag(parse_json(spec.text, "structural_tag"), options);
  }
  throw internal_error("unknown kind of constraint");
}

}  // namespace

std::optional<ConstraintSpec> read_constraint(RequestReader& reader) {
  auto format = read_response_format(reader);
  auto outputs = read_structured_outputs(reader);
  if (format && outputs)
    throw bad_request(
        "You can only use one kind of structured outputs constraint but multiple are specified: "
        "response_format and structured_outputs.",
        "structured_outputs");
  return format ? std::move(format) : std::move(outputs);
}

ConstraintStart thinking_start(bool thinking, const Tokenizer& tokenizer) {
  ConstraintStart start;
  for (const char* name : {"[THINK]", "<think>"})
    if (const auto id = tokenizer.id_of(name)) start.think_start_ids.push_back(*id);
  start.think_ends = {"[/THINK]", "</think>"};
  // Where marks are ordinary text, as in v11, nothing tells whether a thought comes: it is expected.
  start.thinking = thinking || start.think_start_ids.empty();
  return start;
}

std::shared_ptr<const TokenConstraint> compile_constraint(const ConstraintSpec& spec, ConstraintStart start,
                                                          const ServedModel& model) {
  if (!model.token_trie) throw not_implemented("structured output is off on this server", spec.param);
  try {
    const GrammarPtr grammar = compile(spec);
    prepare_masks(grammar, model.token_trie, kPrepareSeconds);
    return std::make_shared<GrammarConstraint>(Matcher(grammar, model.token_trie, model.eos_token_ids),
                                               model.token_trie, std::move(start));
  } catch (const Error& error) {
    throw bad_request(
        fmt::format("Invalid structured output constraint: {} (parameter={})", error.what(), spec.param),
        spec.param);
  }
}

}  // namespace bise
