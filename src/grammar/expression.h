// What every front end (regex, GBNF, Lark, JSON schema, structural tags) produces: rules whose bodies are
// expressions over bytes. Expressions are immutable and share parts freely.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

struct Dfa;
struct Expression;
using Expr = std::shared_ptr<const Expression>;

struct GraphEdge {
  int from, to;
  Expr label;
};

struct Expression {
  enum class Kind : std::uint8_t {
    kBytes,     // `bytes`
    kRange,     // one byte in [low, high]
    kSequence,  // `parts`, one after the other
    kChoice,    // one of `parts`; of none: matches nothing
    kRepeat,    // parts[0], `min` to `max` times (kUnbounded)
    kRule,      // what rule `rule` matches
    kDfa,       // what `dfa` matches
    kGraph,     // the labels along a way from node 0 to node `nodes` - 1
  };
  static constexpr int kUnbounded = -1;

  Kind kind;
  std::string bytes = {};
  std::uint8_t low = 0, high = 0;
  std::vector<Expr> parts = {};
  int min = 0, max = 0;
  std::uint32_t rule = 0;
  std::shared_ptr<const Dfa> dfa = {};
  int nodes = 0;
  std::vector<GraphEdge> edges = {};
};

Expr literal(std::string_view bytes);
Expr byte_range(std::uint8_t low, std::uint8_t high);
Expr sequence(std::vector<Expr> parts);
Expr choice(std::vector<Expr> parts);
Expr repeat(Expr part, int min, int max);
Expr optional(Expr part);
Expr rule_call(std::uint32_t rule);
Expr dfa_expression(std::shared_ptr<const Dfa> dfa);
Expr graph(int nodes, std::vector<GraphEdge> edges);

// A grammar before it is compiled. Rules refer to each other by index.
class Rules {
 public:
  static constexpr std::size_t kMaxRules = 20'000;

  // A rule whose body comes later. Throws Error when there are too many.
  std::uint32_t declare(std::string name);
  void define(std::uint32_t rule, Expr body) { bodies_[rule] = std::move(body); }
  std::uint32_t add(std::string name, Expr body);

  std::size_t size() const { return bodies_.size(); }
  const std::string& name(std::uint32_t rule) const { return names_[rule]; }
  const Expr& body(std::uint32_t rule) const { return bodies_[rule]; }

  std::uint32_t root = 0;

 private:
  std::vector<std::string> names_;
  std::vector<Expr> bodies_;
};

}  // namespace bise
