#include "grammar/automaton.h"

#include "base/check.h"
#include "base/error.h"
#include "grammar/finite_automaton.h"
#include "grammar/left_recursion.h"
#include "grammar/rule_properties.h"

namespace bise {
namespace {

// Rows make long walks fast; a state with fewer edges than this is fast enough without.
constexpr std::uint32_t kEdgesWorthARow = 5;
constexpr std::size_t kMaxRows = 16'384;

// Numbers rules so that each comes before those it calls first. There are no cycles left.
std::vector<std::uint32_t> rank_rules(const std::vector<Dfa>& dfas) {
  const std::size_t count = dfas.size();
  std::vector<std::uint32_t> callers(count, 0), ranks(count, 0), ready;
  for (const Dfa& dfa : dfas)
    for (const std::uint32_t callee : first_calls(dfa)) ++callers[callee];
  for (std::uint32_t rule = 0; rule < count; ++rule)
    if (callers[rule] == 0) ready.push_back(rule);
  std::uint32_t rank = 0;
  while (!ready.empty()) {
    const std::uint32_t rule = ready.back();
    ready.pop_back();
    ranks[rule] = rank++;
    for (const std::uint32_t callee : first_calls(dfas[rule]))
      if (--callers[callee] == 0) ready.push_back(callee);
  }
  check(rank == count, "left recursion was removed");
  return ranks;
}

void append_state(Automaton& automaton, const Dfa& dfa, std::uint32_t state, std::uint32_t base) {
  Automaton::State result;
  result.first_edge = static_cast<std::uint32_t>(automaton.edges.size());
  result.first_call = static_cast<std::uint32_t>(automaton.calls.size());
  result.final = dfa.states[state].final;
  for (const SymbolEdge& edge : dfa.edges_of(state)) {
    if (edge.low < kFirstCall) {
      automaton.edges.push_back(
          {static_cast<std::uint8_t>(edge.low), static_cast<std::uint8_t>(edge.high), base + edge.target});
    } else {
      for (std::uint32_t symbol = edge.low; symbol <= edge.high; ++symbol)
        automaton.calls.push_back({symbol - kFirstCall, base + edge.target});
    }
  }
  result.edge_count = static_cast<std::uint32_t>(automaton.edges.size()) - result.first_edge;
  result.call_count = static_cast<std::uint32_t>(automaton.calls.size()) - result.first_call;
  if (result.edge_count >= kEdgesWorthARow && automaton.rows.size() / 256 < kMaxRows) {
    result.row = static_cast<std::uint32_t>(automaton.rows.size());
    automaton.rows.resize(automaton.rows.size() + 256, Automaton::kDead);
    for (std::uint32_t i = result.first_edge; i < automaton.edges.size(); ++i)
      for (int byte = automaton.edges[i].low; byte <= automaton.edges[i].high; ++byte)
        automaton.rows[result.row + static_cast<std::uint32_t>(byte)] = automaton.edges[i].target;
  }
  automaton.states.push_back(result);
}

// The rules that the root reaches and that are not spelled out in place, with the root first.
class RuleCompiler {
 public:
  explicit RuleCompiler(const Rules& rules)
      : rules_(rules), properties_(rule_properties(rules)), numbers_(rules.size(), Dfa::kNone) {}

  std::vector<Dfa> run() {
    if (!properties_.productive[rules_.root]) throw Error("the constraint matches no text");
    number_of(rules_.root);
    std::size_t states = 0;
    for (std::size_t i = 0; i < pending_.size(); ++i) {
      dfas_.push_back(compile(pending_[i]));
      states += dfas_.back().states.size();
      if (states > kMaxDfaStates)
        throw Error("the constraint needs an automaton of more than {} states", kMaxDfaStates);
    }
    return std::move(dfas_);
  }

 private:
  Dfa compile(std::uint32_t rule) {
    Nfa nfa;
    nfa.add_state();
    const std::uint32_t end = nfa.add_state();
    nfa.states[end].final = true;
    add_expression(nfa, *rules_.body(rule), 0, end, add_rule_);
    return determinize(nfa);
  }

  std::uint32_t number_of(std::uint32_t rule) {
    if (numbers_[rule] == Dfa::kNone) {
      numbers_[rule] = static_cast<std::uint32_t>(pending_.size());
      pending_.push_back(rule);
    }
    return numbers_[rule];
  }

  void add_call(Nfa& nfa, std::uint32_t rule, std::uint32_t from, std::uint32_t to) {
    if (!properties_.productive[rule]) return;
    if (properties_.spelled_out[rule]) {
      add_expression(nfa, *rules_.body(rule), from, to, add_rule_);
      return;
    }
    const std::uint32_t symbol = kFirstCall + number_of(rule);
    nfa.states[from].edges.push_back({symbol, symbol, to});
    // A called rule always reads something: that it may be empty is said here.
    if (properties_.nullable[rule]) nfa.states[from].epsilon.push_back(to);
  }

  const Rules& rules_;
  RuleProperties properties_;
  std::vector<std::uint32_t> numbers_, pending_;
  std::vector<Dfa> dfas_;
  AddRule add_rule_ = [this](Nfa& nfa, std::uint32_t rule, std::uint32_t from, std::uint32_t to) {
    add_call(nfa, rule, from, to);
  };
};

}  // namespace

Automaton compile_rules(const Rules& rules) {
  std::vector<Dfa> dfas = RuleCompiler(rules).run();
  remove_left_recursion(dfas);
  Automaton automaton;
  automaton.rule_ranks = rank_rules(dfas);
  automaton.states.emplace_back();  // kDone
  for (const Dfa& dfa : dfas) {
    const auto base = static_cast<std::uint32_t>(automaton.states.size());
    automaton.rule_starts.push_back(base);
    for (std::uint32_t state = 0; state < dfa.states.size(); ++state)
      append_state(automaton, dfa, state, base);
  }
  return automaton;
}

}  // namespace bise
