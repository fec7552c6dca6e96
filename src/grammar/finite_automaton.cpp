#include "grammar/finite_automaton.h"

#include <algorithm>
#include <unordered_map>

#include "base/check.h"
#include "base/error.h"

namespace bise {
namespace {

using Kind = Expression::Kind;

struct StatesHash {
  std::size_t operator()(const std::vector<std::uint32_t>& states) const {
    std::uint64_t hash = 0xcbf29ce484222325;
    for (const std::uint32_t state : states) hash = (hash ^ state) * 0x100000001b3;
    return hash ^ (hash >> 32);
  }
};

Error too_large() {
  return Error("the constraint needs an automaton of more than {} states", kMaxDfaStates);
}

// Drops the states from which no final state is reached (the start stays).
Dfa trimmed(const Dfa& dfa) {
  const std::size_t count = dfa.states.size();
  std::vector<std::vector<std::uint32_t>> sources(count);
  std::vector<std::uint32_t> pending;
  std::vector<char> alive(count, 0);
  for (std::uint32_t state = 0; state < count; ++state) {
    for (const SymbolEdge& edge : dfa.edges_of(state)) sources[edge.target].push_back(state);
    if (dfa.states[state].final) pending.push_back(state), alive[state] = 1;
  }
  while (!pending.empty()) {
    const std::uint32_t state = pending.back();
    pending.pop_back();
    for (const std::uint32_t source : sources[state])
      if (!alive[source]) alive[source] = 1, pending.push_back(source);
  }
  alive[0] = 1;
  std::vector<std::uint32_t> renumbered(count, Dfa::kNone);
  std::uint32_t next = 0;
  for (std::uint32_t state = 0; state < count; ++state)
    if (alive[state]) renumbered[state] = next++;
  Dfa result;
  for (std::uint32_t state = 0; state < count; ++state) {
    if (!alive[state]) continue;
    const auto first = static_cast<std::uint32_t>(result.edges.size());
    for (const SymbolEdge& edge : dfa.edges_of(state))
      if (alive[edge.target]) result.edges.push_back({edge.low, edge.high, renumbered[edge.target]});
    result.states.push_back(
        {first, static_cast<std::uint32_t>(result.edges.size()) - first, dfa.states[state].final});
  }
  return result;
}

// Appends an edge to the edges of the newest state, joining it with the one before where they touch.
void append_edge(Dfa& dfa, std::uint32_t first_edge, SymbolEdge edge) {
  if (dfa.edges.size() > first_edge) {
    SymbolEdge& last = dfa.edges.back();
    if (last.target == edge.target && last.high + 1 == edge.low && edge.low != kFirstCall) {
      last.high = edge.high;
      return;
    }
  }
  dfa.edges.push_back(edge);
}

// The subset construction.
class Determinizer {
 public:
  explicit Determinizer(const Nfa& nfa) : nfa_(nfa), mark_(nfa.states.size(), 0) {}

  Dfa run() {
    id_of(std::vector<std::uint32_t>{0});
    for (std::size_t i = 0; i < subsets_.size(); ++i) expand(i);
    return trimmed(dfa_);
  }

 private:
  void expand(std::size_t id) {
    std::vector<SymbolEdge> edges;
    bool final = false;
    for (const std::uint32_t member : *subsets_[id]) {
      const Nfa::State& state = nfa_.states[member];
      edges.insert(edges.end(), state.edges.begin(), state.edges.end());
      final |= state.final;
    }
    std::sort(edges.begin(), edges.end(),
              [](const SymbolEdge& a, const SymbolEdge& b) { return a.low < b.low; });
    const auto first_edge = static_cast<std::uint32_t>(dfa_.edges.size());
    std::vector<SymbolEdge> active;
    std::vector<std::uint32_t> targets;
    std::size_t next = 0;
    std::uint32_t low = 0;
    while (next < edges.size() || !active.empty()) {
      if (active.empty()) low = edges[next].low;
      for (; next < edges.size() && edges[next].low == low; ++next) active.push_back(edges[next]);
      std::uint32_t high = next < edges.size() ? edges[next].low - 1 : ~std::uint32_t{0};
      targets.clear();
      for (const SymbolEdge& edge : active) {
        high = std::min(high, edge.high);
        targets.push_back(edge.target);
      }
      const std::uint32_t target = id_of(targets);
      append_edge(dfa_, first_edge, {low, high, target});
      std::erase_if(active, [&](const SymbolEdge& edge) { return edge.high == high; });
      low = high + 1;
    }
    dfa_.states[id] = {first_edge, static_cast<std::uint32_t>(dfa_.edges.size()) - first_edge, final};
  }

  // The number of the subset that `kernel` leads to without reading anything.
  std::uint32_t id_of(const std::vector<std::uint32_t>& kernel) {
    ++stamp_;
    pending_.clear();
    std::vector<std::uint32_t> members;
    const auto visit = [&](std::uint32_t state) {
      if (mark_[state] == stamp_) return;
      mark_[state] = stamp_;
      pending_.push_back(state);
    };
    for (const std::uint32_t state : kernel) visit(state);
    while (!pending_.empty()) {
      const std::uint32_t state = pending_.back();
      pending_.pop_back();
      const Nfa::State& from = nfa_.states[state];
      if (!from.edges.empty() || from.final) members.push_back(state);
      for (const std::uint32_t target : from.epsilon) visit(target);
      if (++work_ > kMaxSubsetWork) throw too_large();
    }
    std::sort(members.begin(), members.end());
    const auto [found, added] =
        ids_.try_emplace(std::move(members), static_cast<std::uint32_t>(subsets_.size()));
    if (added) {
      if (subsets_.size() >= kMaxDfaStates) throw too_large();
      subsets_.push_back(&found->first);
      dfa_.states.emplace_back();
    }
    return found->second;
  }

  const Nfa& nfa_;
  Dfa dfa_;
  std::unordered_map<std::vector<std::uint32_t>, std::uint32_t, StatesHash> ids_;
  std::vector<const std::vector<std::uint32_t>*> subsets_;
  std::vector<std::uint32_t> mark_, pending_;
  std::uint32_t stamp_ = 0;
  std::size_t work_ = 0;
};

void add_dfa(Nfa& nfa, const Dfa& dfa, std::uint32_t from, std::uint32_t to) {
  const auto base = static_cast<std::uint32_t>(nfa.states.size());
  for (std::size_t i = 0; i < dfa.states.size(); ++i) nfa.add_state();
  nfa.states[from].epsilon.push_back(base);
  for (std::uint32_t state = 0; state < dfa.states.size(); ++state) {
    for (const SymbolEdge& edge : dfa.edges_of(state))
      nfa.states[base + state].edges.push_back({edge.low, edge.high, base + edge.target});
    if (dfa.states[state].final) nfa.states[base + state].epsilon.push_back(to);
  }
}

void add_repeat(Nfa& nfa, const Expression& expression, std::uint32_t from, std::uint32_t to,
                const AddRule& add_rule) {
  const Expression& part = *expression.parts[0];
  std::uint32_t at = from;
  for (int i = 0; i < expression.min; ++i) {
    const std::uint32_t next = nfa.add_state();
    add_expression(nfa, part, at, next, add_rule);
    at = next;
  }
  if (expression.max == Expression::kUnbounded) {
    // A state of its own: `at` may have other ways out that must not be taken after a repetition.
    const std::uint32_t loop = nfa.add_state();
    nfa.states[at].epsilon.push_back(loop);
    const std::uint32_t back = nfa.add_state();
    add_expression(nfa, part, loop, back, add_rule);
    nfa.states[back].epsilon.push_back(loop);
    nfa.states[loop].epsilon.push_back(to);
    return;
  }
  for (int i = expression.min; i < expression.max; ++i) {
    nfa.states[at].epsilon.push_back(to);
    const std::uint32_t next = nfa.add_state();
    add_expression(nfa, part, at, next, add_rule);
    at = next;
  }
  nfa.states[at].epsilon.push_back(to);
}

enum class Keep { kBoth, kOnlyFirst };

// Runs both automata side by side; in kOnlyFirst the second may have died (kNone).
Dfa product(const Dfa& a, const Dfa& b, Keep keep) {
  Dfa result;
  std::unordered_map<std::uint64_t, std::uint32_t> ids;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> pairs;
  const auto id_of = [&](std::uint32_t first, std::uint32_t second) {
    const auto [found, added] =
        ids.try_emplace(std::uint64_t{first} << 32 | second, static_cast<std::uint32_t>(pairs.size()));
    if (added) {
      if (pairs.size() >= kMaxDfaStates) throw too_large();
      pairs.emplace_back(first, second);
      result.states.emplace_back();
    }
    return found->second;
  };
  id_of(0, 0);
  for (std::size_t i = 0; i < pairs.size(); ++i) {
    const auto [first, second] = pairs[i];
    const auto first_edge = static_cast<std::uint32_t>(result.edges.size());
    const std::span<const SymbolEdge> others =
        second == Dfa::kNone ? std::span<const SymbolEdge>() : b.edges_of(second);
    std::size_t other = 0;
    for (const SymbolEdge& edge : a.edges_of(first)) {
      std::uint32_t low = edge.low;
      while (low <= edge.high) {
        while (other < others.size() && others[other].high < low) ++other;
        const bool covered = other < others.size() && others[other].low <= low;
        std::uint32_t high = edge.high;
        if (other < others.size())
          high = std::min(high, covered ? others[other].high : others[other].low - 1);
        if (covered || keep == Keep::kOnlyFirst)
          append_edge(result, first_edge,
                      {low, high, id_of(edge.target, covered ? others[other].target : Dfa::kNone)});
        low = high + 1;
      }
    }
    const bool second_final = second != Dfa::kNone && b.states[second].final;
    const bool final = a.states[first].final && (second_final == (keep == Keep::kBoth));
    result.states[i] = {first_edge, static_cast<std::uint32_t>(result.edges.size()) - first_edge, final};
  }
  return trimmed(result);
}

}  // namespace

std::uint32_t Nfa::add_state() {
  if (states.size() >= kMaxNfaStates)
    throw Error("the constraint is too large").expected("less text, smaller or fewer repetition counts");
  states.emplace_back();
  return static_cast<std::uint32_t>(states.size() - 1);
}

std::uint32_t Dfa::next(std::uint32_t state, std::uint32_t symbol) const {
  const std::span<const SymbolEdge> out = edges_of(state);
  const auto edge =
      std::partition_point(out.begin(), out.end(), [&](const SymbolEdge& e) { return e.high < symbol; });
  return edge != out.end() && edge->low <= symbol ? edge->target : kNone;
}

void add_expression(Nfa& nfa, const Expression& expression, std::uint32_t from, std::uint32_t to,
                    const AddRule& add_rule) {
  switch (expression.kind) {
    case Kind::kBytes: {
      std::uint32_t at = from;
      for (const char c : expression.bytes) {
        const std::uint32_t next = nfa.add_state();
        const auto byte = static_cast<std::uint8_t>(c);
        nfa.states[at].edges.push_back({byte, byte, next});
        at = next;
      }
      nfa.states[at].epsilon.push_back(to);
      return;
    }
    case Kind::kRange: nfa.states[from].edges.push_back({expression.low, expression.high, to}); return;
    case Kind::kSequence: {
      std::uint32_t at = from;
      for (const Expr& part : expression.parts) {
        const std::uint32_t next = nfa.add_state();
        add_expression(nfa, *part, at, next, add_rule);
        at = next;
      }
      nfa.states[at].epsilon.push_back(to);
      return;
    }
    case Kind::kChoice:
      for (const Expr& part : expression.parts) {
        const std::uint32_t begin = nfa.add_state();
        nfa.states[from].epsilon.push_back(begin);
        add_expression(nfa, *part, begin, to, add_rule);
      }
      return;
    case Kind::kRepeat: add_repeat(nfa, expression, from, to, add_rule); return;
    case Kind::kRule:
      if (!add_rule) throw Error("a rule that refers to others cannot be used here");
      add_rule(nfa, expression.rule, from, to);
      return;
    case Kind::kDfa: add_dfa(nfa, *expression.dfa, from, to); return;
    case Kind::kGraph: {
      std::vector<std::uint32_t> nodes(static_cast<std::size_t>(expression.nodes));
      for (std::uint32_t& node : nodes) node = nfa.add_state();
      nfa.states[from].epsilon.push_back(nodes.front());
      for (const GraphEdge& edge : expression.edges)
        add_expression(nfa, *edge.label, nodes[edge.from], nodes[edge.to], add_rule);
      nfa.states[nodes.back()].epsilon.push_back(to);
      return;
    }
  }
}

Dfa determinize(const Nfa& nfa) {
  return Determinizer(nfa).run();
}

Dfa determinize(const Expression& expression) {
  Nfa nfa;
  nfa.add_state();
  const std::uint32_t end = nfa.add_state();
  nfa.states[end].final = true;
  add_expression(nfa, expression, 0, end, nullptr);
  return determinize(nfa);
}

Dfa intersection(const Dfa& a, const Dfa& b) {
  return product(a, b, Keep::kBoth);
}

Dfa difference(const Dfa& a, const Dfa& b) {
  return product(a, b, Keep::kOnlyFirst);
}

}  // namespace bise
