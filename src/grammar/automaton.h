// A compiled grammar: one deterministic automaton per rule over bytes and calls of other rules (a recursive
// transition network). No rule calls itself without having read a byte: left recursion is rewritten as
// repetition, so that a parser needs no cycles (grammar/parser_states.h). Immutable.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "grammar/expression.h"

namespace bise {

struct Automaton {
  static constexpr std::uint32_t kDead = ~std::uint32_t{0};
  // The state after the root rule is complete; state 0 of every automaton.
  static constexpr std::uint32_t kDone = 0;

  struct ByteEdge {
    std::uint8_t low, high;
    std::uint32_t target;
  };
  struct Call {
    std::uint32_t rule, target;  // target: the state after the called rule is complete
  };
  struct State {
    std::uint32_t first_edge = 0, edge_count = 0;  // disjoint, sorted
    std::uint32_t first_call = 0, call_count = 0;
    std::uint32_t row = kDead;  // index into rows, for states with many edges
    bool final = false;         // the rule may be complete here

    // The rule is complete here and cannot go on.
    bool end() const { return final && edge_count == 0 && call_count == 0; }
    // Nothing but its bytes to look at.
    bool plain() const { return !final && call_count == 0; }
  };

  std::vector<State> states;
  std::vector<ByteEdge> edges;
  std::vector<Call> calls;
  std::vector<std::uint32_t> rows;         // 256 targets each
  std::vector<std::uint32_t> rule_starts;  // by rule
  // By rule: a rule that another calls before reading a byte has a higher rank than that one.
  std::vector<std::uint32_t> rule_ranks;
  std::uint32_t root = 0;

  std::uint32_t next(std::uint32_t state, std::uint8_t byte) const {
    const State& from = states[state];
    if (from.row != kDead) return rows[from.row + byte];
    for (std::uint32_t i = 0; i < from.edge_count; ++i) {
      const ByteEdge& edge = edges[from.first_edge + i];
      if (byte <= edge.high) return byte >= edge.low ? edge.target : kDead;
    }
    return kDead;
  }
  std::span<const Call> calls_of(std::uint32_t state) const {
    return {calls.data() + states[state].first_call, states[state].call_count};
  }
};

// Throws Error when the root matches no text or the automaton would be too large.
Automaton compile_rules(const Rules& rules);

}  // namespace bise
