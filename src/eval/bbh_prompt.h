// The prompt files of BIG-Bench-Hard (Suzgun et al. 2022): a description and three questions with reasoning.
// Pure functions.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"

namespace bise {

struct BbhPrompt {
  std::string description;
  std::vector<Json> examples;  // {"input", "target"}: the question, and the answer without its reasoning
};

// Throws Error naming `where`.
BbhPrompt parse_bbh_prompt(const std::string& text, const std::string& where);

}  // namespace bise
