// Left recursion (expr ::= expr "+" term | term), which GBNF and Lark grammars contain, rewritten.
#pragma once

#include <cstdint>
#include <vector>

#include "grammar/finite_automaton.h"

namespace bise {

// The rules that `dfa` calls before it reads a byte, each once.
std::vector<std::uint32_t> first_calls(const Dfa& dfa);

// Rewrites the rules so that none calls itself, directly or through others, before it has read a byte; the
// languages stay the same. Paull's algorithm, on automata: A ::= A x | y becomes y x*. Throws Error when the
// result would be too large.
void remove_left_recursion(std::vector<Dfa>& rules);

}  // namespace bise
