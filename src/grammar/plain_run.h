// A shortcut for states inside JSON strings, where almost every token may come next.
#pragma once

#include <cstdint>

#include "grammar/automaton.h"

namespace bise {

// How many plain characters (see TokenTrie), whichever they are, may follow in `state` without leaving its
// rule; at most `limit`. May be too small, never too large.
int plain_run(const Automaton& automaton, std::uint32_t state, int limit);

}  // namespace bise
