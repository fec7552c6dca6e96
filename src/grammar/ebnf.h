// Context-free grammars as users send them, in either of two notations.
#pragma once

#include <cstdint>
#include <string_view>

#include "grammar/expression.h"
#include "grammar/grammar.h"

namespace bise {

// Adds the rules of `text`: GBNF when it contains "::=", otherwise Lark. Returns its root. Throws Error.
std::uint32_t add_ebnf(Rules& rules, std::string_view text, JsonSchemaOptions options);

}  // namespace bise
