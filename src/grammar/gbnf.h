// GBNF, the grammars of llama.cpp, and xgrammar's EBNF:
//   root ::= "a" [b-z]* (rule | "\n"){1,3}   # comment
// Rule names are letters, digits, "-" and "_"; the start is `root`.
#pragma once

#include <cstdint>
#include <string_view>

#include "grammar/expression.h"

namespace bise {

// Adds the rules of `text`; returns its root. Throws Error naming the place.
std::uint32_t add_gbnf(Rules& rules, std::string_view text);

}  // namespace bise
