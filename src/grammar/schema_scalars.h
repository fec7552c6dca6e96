// The keywords of JSON Schema for strings and numbers.
#pragma once

#include <optional>
#include <string>

#include "base/json.h"
#include "grammar/finite_automaton.h"
#include "grammar/json_numbers.h"
#include "grammar/json_rules.h"

namespace bise {

// A member that must be a whole number, not negative; nothing when it is absent.
std::optional<int> find_count(const Json& schema, const char* key);
// A member that must be a string; nothing when it is absent.
std::optional<std::string> find_text(const Json& schema, const char* key);

// The strings, with their quotes, that `schema` allows where it says more than a length.
std::optional<Dfa> string_language(const Json& schema);
Expr string_schema(const Json& schema, JsonRules& json);

NumberBounds number_bounds(const Json& schema);
Expr number_schema(const Json& schema, bool integer, JsonRules& json);

// Whether the texts of scalars, members of an `enum`, satisfy the other keywords of `schema` for their types.
class ScalarCheck {
 public:
  explicit ScalarCheck(const Json& schema);
  bool operator()(const Json& value) const;

 private:
  std::optional<Dfa> strings_, numbers_;  // nothing: all
};

// Whether `text` is in the language.
bool accepts(const Dfa& dfa, std::string_view text);

}  // namespace bise
