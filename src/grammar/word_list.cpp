#include "grammar/word_list.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "grammar/finite_automaton.h"

namespace bise {
namespace {

class Builder {
 public:
  Dfa run(std::vector<std::string>& texts) {
    std::sort(texts.begin(), texts.end());
    path_ = {take_node()};
    std::string_view previous;
    for (const std::string& text : texts) {
      const auto [mismatch, ignored] =
          std::mismatch(text.begin(), text.end(), previous.begin(), previous.end());
      const auto shared = static_cast<std::size_t>(mismatch - text.begin());
      settle(shared);
      for (std::size_t i = shared; i < text.size(); ++i) {
        const std::uint32_t node = take_node();
        nodes_[path_.back()].edges.emplace_back(static_cast<std::uint8_t>(text[i]), node);
        path_.push_back(node);
      }
      nodes_[path_.back()].final = true;
      previous = text;
    }
    settle(0);
    return numbered();
  }

 private:
  struct Node {
    std::vector<std::pair<std::uint8_t, std::uint32_t>> edges;
    bool final = false;
  };

  std::uint32_t take_node() {
    if (!free_.empty()) {
      const std::uint32_t node = free_.back();
      free_.pop_back();
      nodes_[node] = {};
      return node;
    }
    nodes_.emplace_back();
    return static_cast<std::uint32_t>(nodes_.size() - 1);
  }

  // The nodes of the last text deeper than `depth` get no more edges: equal ones become one.
  void settle(std::size_t depth) {
    while (path_.size() > depth + 1) {
      const std::uint32_t node = path_.back();
      path_.pop_back();
      const auto [known, added] = settled_.try_emplace(key_of(nodes_[node]), node);
      if (added) continue;
      nodes_[path_.back()].edges.back().second = known->second;
      free_.push_back(node);
    }
  }

  static std::string key_of(const Node& node) {
    std::string key(1, static_cast<char>(node.final));
    for (const auto& [byte, target] : node.edges) {
      key += static_cast<char>(byte);
      key.append(reinterpret_cast<const char*>(&target), sizeof target);
    }
    return key;
  }

  Dfa numbered() const {
    Dfa dfa;
    std::vector<std::uint32_t> numbers(nodes_.size(), Dfa::kNone), order = {path_[0]};
    numbers[path_[0]] = 0;
    for (std::size_t i = 0; i < order.size(); ++i) {
      const Node& node = nodes_[order[i]];
      dfa.states.push_back({static_cast<std::uint32_t>(dfa.edges.size()),
                            static_cast<std::uint32_t>(node.edges.size()), node.final});
      for (const auto& [byte, target] : node.edges) {
        if (numbers[target] == Dfa::kNone) {
          numbers[target] = static_cast<std::uint32_t>(order.size());
          order.push_back(target);
        }
        dfa.edges.push_back({byte, byte, numbers[target]});
      }
    }
    return dfa;
  }

  std::vector<Node> nodes_;
  std::vector<std::uint32_t> path_, free_;
  std::unordered_map<std::string, std::uint32_t> settled_;
};

}  // namespace

Expr one_of_texts(std::vector<std::string> texts) {
  return dfa_expression(std::make_shared<const Dfa>(Builder().run(texts)));
}

}  // namespace bise
