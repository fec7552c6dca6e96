#include "grammar/left_recursion.h"

#include <algorithm>

#include "base/error.h"

namespace bise {
namespace {

// The rules on cycles of first calls, and those on ways between such cycles, in ascending order.
std::vector<std::uint32_t> cyclic_rules(const std::vector<Dfa>& rules) {
  const std::size_t count = rules.size();
  std::vector<std::vector<std::uint32_t>> callees(count), callers(count);
  for (std::uint32_t rule = 0; rule < count; ++rule) {
    callees[rule] = first_calls(rules[rule]);
    for (const std::uint32_t callee : callees[rule]) callers[callee].push_back(rule);
  }
  std::vector<char> removed(count, 0);
  // Takes away, again and again, the rules without a neighbour of one kind.
  const auto peel = [&](const auto& needed, const auto& others) {
    std::vector<std::size_t> left(count, 0);
    std::vector<std::uint32_t> pending;
    for (std::uint32_t rule = 0; rule < count; ++rule) {
      for (const std::uint32_t neighbour : needed[rule]) left[rule] += !removed[neighbour];
      if (!removed[rule] && left[rule] == 0) pending.push_back(rule);
    }
    while (!pending.empty()) {
      const std::uint32_t rule = pending.back();
      pending.pop_back();
      removed[rule] = 1;
      for (const std::uint32_t neighbour : others[rule])
        if (--left[neighbour] == 0 && !removed[neighbour]) pending.push_back(neighbour);
    }
  };
  peel(callees, callers);
  peel(callers, callees);
  std::vector<std::uint32_t> result;
  for (std::uint32_t rule = 0; rule < count; ++rule)
    if (!removed[rule]) result.push_back(rule);
  return result;
}

// Appends the states of `dfa`; returns where they begin.
std::uint32_t append(Nfa& nfa, const Dfa& dfa) {
  const auto base = static_cast<std::uint32_t>(nfa.states.size());
  for (std::uint32_t state = 0; state < dfa.states.size(); ++state) {
    nfa.add_state();
    nfa.states.back().final = dfa.states[state].final;
    for (const SymbolEdge& edge : dfa.edges_of(state))
      nfa.states.back().edges.push_back({edge.low, edge.high, base + edge.target});
  }
  return base;
}

// The edges of state 0 that call `callee` are taken away; returns where they led.
std::vector<std::uint32_t> take_first_calls(Nfa& nfa, std::uint32_t callee) {
  const std::uint32_t symbol = kFirstCall + callee;
  std::vector<std::uint32_t> targets;
  std::vector<SymbolEdge> kept;
  for (const SymbolEdge& edge : nfa.states[0].edges) {
    if (edge.high < symbol || edge.low > symbol) {
      kept.push_back(edge);
      continue;
    }
    targets.push_back(edge.target);
    if (edge.low < symbol) kept.push_back({edge.low, symbol - 1, edge.target});
    if (edge.high > symbol) kept.push_back({symbol + 1, edge.high, edge.target});
  }
  nfa.states[0].edges = std::move(kept);
  return targets;
}

// `rule` without first calls of the rules before it in `order` and of itself.
Dfa rewritten(const std::vector<Dfa>& rules, std::span<const std::uint32_t> before, std::uint32_t rule) {
  Nfa nfa;
  nfa.add_state();  // the start, which nothing leads back to
  const std::uint32_t own = append(nfa, rules[rule]);
  nfa.states[0].edges = nfa.states[own].edges;
  nfa.states[0].final = nfa.states[own].final;
  for (const std::uint32_t callee : before) {
    for (const std::uint32_t target : take_first_calls(nfa, callee)) {
      const std::uint32_t base = append(nfa, rules[callee]);
      nfa.states[0].edges.insert(nfa.states[0].edges.end(), nfa.states[base].edges.begin(),
                                 nfa.states[base].edges.end());
      // That the callee may be empty is already said by an edge around the call.
      for (std::size_t state = base; state < nfa.states.size(); ++state) {
        if (!nfa.states[state].final) continue;
        nfa.states[state].final = false;
        nfa.states[state].epsilon.push_back(target);
      }
    }
  }
  // What follows a call of the rule itself may follow wherever the rule was complete.
  for (const std::uint32_t target : take_first_calls(nfa, rule))
    for (std::uint32_t state = 1; state < nfa.states.size(); ++state)
      if (nfa.states[state].final) nfa.states[state].epsilon.push_back(target);
  return determinize(nfa);
}

}  // namespace

std::vector<std::uint32_t> first_calls(const Dfa& dfa) {
  std::vector<std::uint32_t> callees;
  for (const SymbolEdge& edge : dfa.edges_of(0))
    for (std::uint32_t symbol = std::max(edge.low, kFirstCall); symbol <= edge.high; ++symbol)
      callees.push_back(symbol - kFirstCall);
  return callees;
}

void remove_left_recursion(std::vector<Dfa>& rules) {
  const std::vector<std::uint32_t> order = cyclic_rules(rules);
  std::size_t states = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    rules[order[i]] = rewritten(rules, std::span(order).first(i), order[i]);
    states += rules[order[i]].states.size();
    if (states > kMaxDfaStates) throw Error("the left recursion of the grammar is too involved");
  }
}

}  // namespace bise
