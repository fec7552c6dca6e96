#include "grammar/members_graph.h"

#include <algorithm>

#include "base/error.h"

namespace bise {
namespace {

constexpr std::int64_t kMaxNodes = 50'000;

}  // namespace

MembersGraph::MembersGraph(Rules& rules, JsonRules& json, const std::vector<ObjectMember>& listed,
                           const std::vector<ObjectMember>& open, int min, int max)
    : rules_(rules),
      json_(json),
      listed_(listed),
      open_(open),
      min_(min),
      max_(max),
      limit_(max == Expression::kUnbounded ? std::max(min, 1) : max) {}

Expr MembersGraph::object() {
  if ((static_cast<std::int64_t>(listed_.size()) + 1) * (limit_ + 1) > kMaxNodes)
    throw Error("too many properties for minProperties or maxProperties");
  const int groups = static_cast<int>(listed_.size()) / kGroup;
  groups_.resize(static_cast<std::size_t>((groups + 1) * (limit_ + 1)));
  // From the last group to the first: each calls the next.
  for (int group = groups; group > 0; --group)
    for (int seen = 0; seen <= limit_; ++seen)
      groups_[static_cast<std::size_t>(group * (limit_ + 1) + seen)] =
          rule_call(rules_.add("members", members_from(group * kGroup, seen)));
  return json_.bracketed('{', 2, {{0, 1, members_from(0, 0)}}, '}');
}

// What follows when the listed members before `first` are done with and there are `seen` members so far: the
// rest of the members, up to the closing brace.
Expr MembersGraph::members_from(int first, int seen) {
  const int last = std::min(first + kGroup, static_cast<int>(listed_.size()));
  const bool ends_here = last < first + kGroup;  // else the next group, perhaps without a listed member, does
  // Node 0 is the start; then one for each member done with and number of members; then the end.
  const auto node = [&](int i, int n) { return 1 + (i - first) * (limit_ + 1) + n; };
  const int end = node(last, limit_) + 1;
  std::vector<GraphEdge> edges = {{0, node(first, seen), literal("")}};
  for (int i = first; i <= last; ++i) {
    for (int n = 0; n <= limit_; ++n) {
      const bool room = max_ == Expression::kUnbounded || n < max_;
      if (i < last) {
        const ObjectMember& next = listed_[static_cast<std::size_t>(i)];
        if (!next.required) edges.push_back({node(i, n), node(i + 1, n), literal("")});
        if (room) edges.push_back({node(i, n), node(i + 1, counted(n)), member(next, n)});
      } else if (!ends_here) {
        edges.push_back(
            {node(i, n), end, groups_[static_cast<std::size_t>(last / kGroup * (limit_ + 1) + n)]});
      } else {
        for (const ObjectMember& next : open_)
          if (room) edges.push_back({node(i, n), node(i, counted(n)), member(next, n)});
        if (n >= min_) edges.push_back({node(i, n), end, n == 0 ? literal("") : json_.blank()});
      }
    }
  }
  return graph(end + 1, std::move(edges));
}

Expr MembersGraph::member(const ObjectMember& member, int seen) {
  std::vector<Expr> parts;
  if (seen > 0) parts.push_back(json_.comma());
  parts.insert(parts.end(), {member.name, json_.colon(), member.value});
  return sequence(std::move(parts));
}

}  // namespace bise
