// The parts of JSON that constraints are put together from. Strings hold valid UTF-8 and valid escapes (no
// half of a surrogate pair), so that every JSON parser takes the text; numbers stay within the range of a
// double, and have so few digits that no model can go on with them for ever.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "grammar/expression.h"
#include "grammar/finite_automaton.h"
#include "grammar/grammar.h"

namespace bise {

class JsonRules {
 public:
  // Adds rules to `rules` as they are asked for. `rules` must outlive this.
  JsonRules(Rules& rules, JsonSchemaOptions options) : rules_(rules), options_(options) {}

  // Whitespace inside a value, between tokens.
  Expr blank();
  Expr comma();  // with whitespace around
  Expr colon();
  // "{" or "[", `edges` as a graph from node 0 to the last of `nodes`, and the closing bracket. Whitespace
  // stands after the opening bracket, and before the closing one wherever `comma()` might have.
  Expr bracketed(char open, int nodes, std::vector<GraphEdge> edges, char close);

  // Any value of a kind.
  Expr string();
  Expr number();
  Expr integer();
  Expr object();
  Expr array();
  Expr value();
  // Exactly `value`, but for whitespace.
  Expr constant(const Json& value);
  // A string of `min` to `max` characters (Expression::kUnbounded).
  Expr string_of_length(int min, int max);

 private:
  Expr chunk();
  Expr partial_chunks();
  Expr members(Expr member, char open, char close);

  Rules& rules_;
  JsonSchemaOptions options_;
  std::optional<std::uint32_t> blank_, string_, number_, integer_, object_, array_, value_, chunk_, partial_;
};

// One character inside a JSON string, in any spelling.
Expr json_character();
// The same without \u and "\/": every character that can be spelled has one spelling.
Expr json_canonical_character();
// '"', `content`, '"'.
Expr quoted(Expr content);
// A string in its canonical spelling, with quotes.
Expr json_string_constant(std::string_view text);

}  // namespace bise
