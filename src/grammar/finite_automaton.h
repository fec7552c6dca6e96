// Finite automata over symbols: bytes, and above them calls of rules. An Nfa is what expressions are spelled
// out into; a Dfa is what runs, and what languages are intersected with.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "grammar/expression.h"

namespace bise {

// Symbols below 256 are bytes; kFirstCall + r is a call of rule r.
inline constexpr std::uint32_t kFirstCall = 256;

struct SymbolEdge {
  std::uint32_t low, high, target;  // on any symbol in [low, high]
};

// Limits on one grammar, so that no input compiles for ever.
inline constexpr std::size_t kMaxNfaStates = 500'000;
inline constexpr std::size_t kMaxDfaStates = 250'000;
inline constexpr std::size_t kMaxSubsetWork = 30'000'000;  // NFA states visited while determinizing

struct Nfa {
  struct State {
    std::vector<SymbolEdge> edges;
    std::vector<std::uint32_t> epsilon;
    bool final = false;
  };
  std::vector<State> states;  // the start is state 0

  // Throws Error beyond kMaxNfaStates.
  std::uint32_t add_state();
};

// Deterministic: the edges of a state are sorted and disjoint. Every state lies on a way from the start
// (state 0) to a final state, but for the start of the empty language.
struct Dfa {
  struct State {
    std::uint32_t first_edge = 0, edge_count = 0;
    bool final = false;
  };
  std::vector<State> states;
  std::vector<SymbolEdge> edges;

  std::span<const SymbolEdge> edges_of(std::uint32_t state) const {
    return {edges.data() + states[state].first_edge, states[state].edge_count};
  }
  // The state after `symbol`, or kNone.
  std::uint32_t next(std::uint32_t state, std::uint32_t symbol) const;
  bool empty() const { return edges.empty() && !states[0].final; }
  static constexpr std::uint32_t kNone = ~std::uint32_t{0};
};

// What the caller of add_expression knows about rules. `add_rule` puts whatever a call means between two
// states; without it a call throws Error.
using AddRule = std::function<void(Nfa&, std::uint32_t rule, std::uint32_t from, std::uint32_t to)>;

// Spells `expression` out between two states of `nfa`.
void add_expression(Nfa& nfa, const Expression& expression, std::uint32_t from, std::uint32_t to,
                    const AddRule& add_rule);

// The same language, trimmed. Throws Error when it would need more than kMaxDfaStates states or
// kMaxSubsetWork steps.
Dfa determinize(const Nfa& nfa);
// The language of an expression without calls.
Dfa determinize(const Expression& expression);

// Words of both / of `a` that are not in `b` (which has no calls).
Dfa intersection(const Dfa& a, const Dfa& b);
Dfa difference(const Dfa& a, const Dfa& b);

}  // namespace bise
