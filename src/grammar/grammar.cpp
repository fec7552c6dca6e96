#include "grammar/grammar.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "grammar/gbnf.h"
#include "grammar/mask_cache.h"
#include "grammar/regex.h"
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

GrammarPtr compile_regex(std::string_view pattern) {
  return compiled(parse_regex(pattern));
}

GrammarPtr compile_choice(std::span<const std::string> choices) {
  if (choices.empty()) throw Error("the list of choices is empty");
  std::vector<Expr> parts;
  for (const std::string& text : choices) {
    if (find_invalid_utf8(text)) throw Error("a choice is not valid UTF-8");
    parts.push_back(literal(text));
  }
  return compiled(choice(std::move(parts)));
}

GrammarPtr compile_ebnf(std::string_view text) {
  return compiled(parse_gbnf(text));
}

}  // namespace bise
