// The rules of a grammar that refers to them by names, before or after their definitions.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "grammar/expression.h"
#include "grammar/text_reader.h"

namespace bise {

class NamedRules {
 public:
  explicit NamedRules(Rules& rules) : rules_(rules) {}

  // Declared at its first mention.
  std::uint32_t number_of(std::string_view name) {
    const auto found = numbers_.find(name);
    if (found != numbers_.end()) return found->second;
    const std::uint32_t rule = rules_.declare(std::string(name));
    numbers_.emplace(name, rule);
    return rule;
  }

  // Throws Error, at the reader's place, when the name has a body.
  void define(std::string_view name, Expr body, const TextReader& reader) {
    const std::uint32_t rule = number_of(name);
    if (rules_.body(rule)) reader.fail("'" + std::string(name) + "' is defined twice");
    rules_.define(rule, std::move(body));
  }

  // The rule that the grammar begins with. Throws Error when it, or any rule that was mentioned, is missing.
  std::uint32_t root(std::string_view name) const {
    const auto root = numbers_.find(name);
    if (root == numbers_.end()) throw Error("the grammar has no rule '{}'", name);
    for (const auto& [each, rule] : numbers_)
      if (!rules_.body(rule)) throw Error("the grammar has no rule '{}'", each);
    return root->second;
  }

 private:
  Rules& rules_;
  std::map<std::string, std::uint32_t, std::less<>> numbers_;
};

}  // namespace bise
