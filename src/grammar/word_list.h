// Long lists of texts (enum, choice) as small automata.
#pragma once

#include <string>
#include <vector>

#include "grammar/expression.h"

namespace bise {

// One of `texts`: the smallest automaton, which shares beginnings and ends. Takes time in proportion to their
// length (Daciuk et al. 2000, "Incremental construction of minimal acyclic finite-state automata").
Expr one_of_texts(std::vector<std::string> texts);

}  // namespace bise
