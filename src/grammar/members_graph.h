// The members of a JSON object: in a fixed order, some of them optional, with commas between them.
#pragma once

#include <vector>

#include "grammar/expression.h"
#include "grammar/json_rules.h"

namespace bise {

struct ObjectMember {
  Expr name;  // with its quotes
  Expr value;
  bool required = false;
};

class MembersGraph {
 public:
  // `listed` members come in their order, then any number of `open` ones in any order; `min` to `max`
  // (Expression::kUnbounded) together.
  MembersGraph(Rules& rules, JsonRules& json, const std::vector<ObjectMember>& listed,
               const std::vector<ObjectMember>& open, int min, int max);

  // With the braces. Throws Error when the graph would be too large.
  Expr object();

 private:
  // Listed members are taken in groups, each a rule that calls the next. Within a group the automaton tells
  // apart all names that may follow, which takes states in proportion to the square of the group.
  static constexpr int kGroup = 32;

  Expr members_from(int first, int seen);
  Expr member(const ObjectMember& member, int seen);
  int counted(int seen) const { return seen < limit_ ? seen + 1 : limit_; }

  Rules& rules_;
  JsonRules& json_;
  const std::vector<ObjectMember>& listed_;
  const std::vector<ObjectMember>& open_;
  int min_, max_;
  int limit_;                 // members beyond this many need not be told apart
  std::vector<Expr> groups_;  // by group and members seen
};

}  // namespace bise
