#include "grammar/grammar.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "grammar/ebnf.h"
#include "grammar/json_schema.h"
#include "grammar/mask_cache.h"
#include "grammar/regex.h"
#include "grammar/structural_tag.h"
#include "grammar/word_list.h"
#include "text/utf8.h"

namespace bise {
namespace {

GrammarPtr compiled(const Rules& rules) {
  return std::make_shared<const Grammar>(compile_rules(rules));
}

GrammarPtr compiled(Expr root) {
  Rules rules;
  rules.root = rules.add("root", std::move(root));
  return compiled(rules);
}

}  // namespace

GrammarPtr compile_json_schema(const Json& schema, JsonSchemaOptions options) {
  Rules rules;
  rules.root = add_json_schema(rules, schema, options);
  return compiled(rules);
}

GrammarPtr compile_json_schema(std::string_view schema, JsonSchemaOptions options) {
  return compile_json_schema(parse_json(schema, "JSON schema"), options);
}

GrammarPtr compile_json_object(JsonSchemaOptions options) {
  return compile_json_schema(Json{{"type", "object"}}, options);
}

GrammarPtr compile_regex(std::string_view pattern) {
  return compiled(parse_regex(pattern));
}

GrammarPtr compile_choice(std::span<const std::string> choices) {
  if (choices.empty()) throw Error("the list of choices is empty");
  for (const std::string& text : choices)
    if (find_invalid_utf8(text)) throw Error("a choice is not valid UTF-8");
  return compiled(one_of_texts({choices.begin(), choices.end()}));
}

GrammarPtr compile_ebnf(std::string_view text) {
  Rules rules;
  rules.root = add_ebnf(rules, text, {});
  return compiled(rules);
}

GrammarPtr compile_structural_tag(const Json& description, JsonSchemaOptions options) {
  Rules rules;
  rules.root = rules.add("root", structural_tag(rules, description, options));
  return compiled(rules);
}

}  // namespace bise
