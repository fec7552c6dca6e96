#include "grammar/expression.h"

#include "base/error.h"

namespace bise {
namespace {

using Kind = Expression::Kind;

Expr make(Expression expression) {
  return std::make_shared<const Expression>(std::move(expression));
}

}  // namespace

Expr literal(std::string_view bytes) {
  return make({.kind = Kind::kBytes, .bytes = std::string(bytes)});
}

Expr byte_range(std::uint8_t low, std::uint8_t high) {
  return make({.kind = Kind::kRange, .low = low, .high = high});
}

Expr sequence(std::vector<Expr> parts) {
  if (parts.size() == 1) return parts[0];
  return make({.kind = Kind::kSequence, .parts = std::move(parts)});
}

Expr choice(std::vector<Expr> parts) {
  if (parts.size() == 1) return parts[0];
  return make({.kind = Kind::kChoice, .parts = std::move(parts)});
}

Expr repeat(Expr part, int min, int max) {
  return make({.kind = Kind::kRepeat, .parts = {std::move(part)}, .min = min, .max = max});
}

Expr optional(Expr part) {
  return repeat(std::move(part), 0, 1);
}

Expr rule_call(std::uint32_t rule) {
  return make({.kind = Kind::kRule, .rule = rule});
}

Expr dfa_expression(std::shared_ptr<const Dfa> dfa) {
  return make({.kind = Kind::kDfa, .dfa = std::move(dfa)});
}

Expr graph(int nodes, std::vector<GraphEdge> edges) {
  return make({.kind = Kind::kGraph, .nodes = nodes, .edges = std::move(edges)});
}

std::uint32_t Rules::declare(std::string name) {
  if (bodies_.size() >= kMaxRules) throw Error("the grammar has more than {} rules", kMaxRules);
  names_.push_back(std::move(name));
  bodies_.push_back(nullptr);
  return static_cast<std::uint32_t>(bodies_.size() - 1);
}

std::uint32_t Rules::add(std::string name, Expr body) {
  const std::uint32_t rule = declare(std::move(name));
  define(rule, std::move(body));
  return rule;
}

}  // namespace bise
