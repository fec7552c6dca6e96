// What has to be known of every rule before any is compiled.
#pragma once

#include <vector>

#include "grammar/expression.h"

namespace bise {

struct RuleProperties {
  std::vector<char> nullable;     // matches the empty text
  std::vector<char> productive;   // matches some text
  std::vector<char> spelled_out;  // so small, and without recursion, that calls are replaced by the body
};

RuleProperties rule_properties(const Rules& rules);

}  // namespace bise
