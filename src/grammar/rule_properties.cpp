#include "grammar/rule_properties.h"

#include <algorithm>
#include <functional>

#include "grammar/finite_automaton.h"

namespace bise {
namespace {

using Kind = Expression::Kind;
// Whether an expression has a property, given the rules known to have it so far.
using Property = bool (*)(const Expression&, const std::vector<char>&);

// Whether node `nodes - 1` of a graph is reached along labels that have the property.
bool reaches_end(const Expression& graph, const std::vector<char>& rules, Property property) {
  std::vector<char> reached(static_cast<std::size_t>(graph.nodes), 0);
  reached[0] = 1;
  for (bool changed = true; changed;) {
    changed = false;
    for (const GraphEdge& edge : graph.edges) {
      if (!reached[edge.from] || reached[edge.to] || !property(*edge.label, rules)) continue;
      reached[edge.to] = 1;
      changed = true;
    }
  }
  return reached.back();
}

bool has_property(const Expression& expression, const std::vector<char>& rules, Property property) {
  const auto of_part = [&](const Expr& part) { return property(*part, rules); };
  switch (expression.kind) {
    case Kind::kSequence: return std::all_of(expression.parts.begin(), expression.parts.end(), of_part);
    case Kind::kChoice: return std::any_of(expression.parts.begin(), expression.parts.end(), of_part);
    case Kind::kRepeat: return expression.min == 0 || of_part(expression.parts[0]);
    case Kind::kRule: return rules[expression.rule];
    default: return reaches_end(expression, rules, property);
  }
}

bool is_nullable(const Expression& expression, const std::vector<char>& rules) {
  if (expression.kind == Kind::kBytes) return expression.bytes.empty();
  if (expression.kind == Kind::kRange) return false;
  if (expression.kind == Kind::kDfa) return expression.dfa->states[0].final;
  return has_property(expression, rules, is_nullable);
}

bool is_productive(const Expression& expression, const std::vector<char>& rules) {
  if (expression.kind == Kind::kBytes || expression.kind == Kind::kRange) return true;
  if (expression.kind == Kind::kDfa) return !expression.dfa->empty();
  return has_property(expression, rules, is_productive);
}

void for_each_call(const Expression& expression, const std::function<void(std::uint32_t)>& visit) {
  if (expression.kind == Kind::kRule) visit(expression.rule);
  for (const Expr& part : expression.parts) for_each_call(*part, visit);
  for (const GraphEdge& edge : expression.edges) for_each_call(*edge.label, visit);
}

// The rules that have the property: the least solution, by looking again at the callers of each new one.
std::vector<char> solve(const Rules& rules, const std::vector<std::vector<std::uint32_t>>& callers,
                        Property property) {
  std::vector<char> result(rules.size(), 0);
  std::vector<std::uint32_t> pending(rules.size());
  for (std::uint32_t rule = 0; rule < rules.size(); ++rule) pending[rule] = rule;
  while (!pending.empty()) {
    const std::uint32_t rule = pending.back();
    pending.pop_back();
    if (result[rule] || !property(*rules.body(rule), result)) continue;
    result[rule] = 1;
    pending.insert(pending.end(), callers[rule].begin(), callers[rule].end());
  }
  return result;
}

// How many automaton states rules take when calls are spelled out; anything above the limit is the same.
class Sizes {
 public:
  static constexpr int kLimit = 32, kMaxDepth = 100;
  explicit Sizes(const Rules& rules) : rules_(rules), sizes_(rules.size(), kUnknown) {}

  int of_rule(std::uint32_t rule, int depth) {
    if (sizes_[rule] != kUnknown) return sizes_[rule];
    if (depth > kMaxDepth) return kLimit + 1;
    sizes_[rule] = kLimit + 1;  // what a call from inside itself finds
    return sizes_[rule] = of(*rules_.body(rule), depth);
  }

 private:
  static constexpr int kUnknown = -1;

  int of(const Expression& expression, int depth) {
    std::int64_t size = 1;
    switch (expression.kind) {
      case Kind::kBytes: size = static_cast<std::int64_t>(expression.bytes.size()); break;
      case Kind::kRange: break;
      case Kind::kRule: size = of_rule(expression.rule, depth + 1); break;
      case Kind::kDfa: size = static_cast<std::int64_t>(expression.dfa->states.size()); break;
      case Kind::kRepeat:
        size = std::int64_t{of(*expression.parts[0], depth)} * std::max({expression.min, expression.max, 1});
        break;
      default:
        for (const Expr& part : expression.parts)
          if ((size += of(*part, depth)) > kLimit) break;
        for (const GraphEdge& edge : expression.edges)
          if ((size += of(*edge.label, depth)) > kLimit) break;
    }
    return static_cast<int>(std::min<std::int64_t>(size, kLimit + 1));
  }

  const Rules& rules_;
  std::vector<int> sizes_;
};

}  // namespace

RuleProperties rule_properties(const Rules& rules) {
  std::vector<std::vector<std::uint32_t>> callers(rules.size());
  for (std::uint32_t rule = 0; rule < rules.size(); ++rule)
    for_each_call(*rules.body(rule), [&](std::uint32_t callee) { callers[callee].push_back(rule); });
  RuleProperties properties;
  properties.nullable = solve(rules, callers, is_nullable);
  properties.productive = solve(rules, callers, is_productive);
  Sizes sizes(rules);
  for (std::uint32_t rule = 0; rule < rules.size(); ++rule)
    properties.spelled_out.push_back(sizes.of_rule(rule, 0) <= Sizes::kLimit);
  return properties;
}

}  // namespace bise
