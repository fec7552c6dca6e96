// GBNF, the grammars of llama.cpp, and xgrammar's EBNF:
//   root ::= "a" [b-z]* (rule | "\n"){1,3}   # comment
// Rule names are letters, digits, "-" and "_"; the start is `root`.
#pragma once

#include <string_view>

#include "grammar/expression.h"

namespace bise {

// Throws Error naming the place.
Rules parse_gbnf(std::string_view text);

}  // namespace bise
