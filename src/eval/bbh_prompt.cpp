#include "eval/bbh_prompt.h"

#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"

namespace bise {
namespace {

constexpr std::string_view kRule = "-----\n",
                           kQuestion = "\n\nQ:", kReasoning = "\nA:", kAnswer = "So the answer is ";

// `part` begins behind "Q:"; the answer stands behind kAnswer, without its last point.
Json parse_example(const std::string& part, const std::string& where) {
  const std::size_t reasoning = part.find(kReasoning), answer = part.find(kAnswer);
  if (reasoning == std::string::npos || answer == std::string::npos)
    throw Error("an example has no answer").at(where);
  std::string target = part.substr(answer + kAnswer.size());
  while (target.ends_with('\n') || target.ends_with(' ')) target.pop_back();
  if (target.ends_with('.')) target.pop_back();
  const std::size_t begin = part.starts_with(' ') ? 1 : 0;
  if (reasoning < begin) throw Error("an example has no question").at(where);
  return {{"input", part.substr(begin, reasoning - begin)}, {"target", target}};
}

}  // namespace

BbhPrompt parse_bbh_prompt(const std::string& text, const std::string& where) {
  const std::size_t rule = text.find(kRule);
  std::size_t at = text.find(kQuestion);
  if (rule == std::string::npos || at == std::string::npos || at < rule + kRule.size())
    throw Error("not a BIG-Bench-Hard prompt file").at(where);
  BbhPrompt prompt;
  prompt.description = text.substr(rule + kRule.size(), at - rule - kRule.size());
  while (at != std::string::npos) {
    const std::size_t begin = at + kQuestion.size(), next = text.find(kQuestion, begin);
    prompt.examples.push_back(
        parse_example(text.substr(begin, next == std::string::npos ? next : next - begin), where));
    at = next;
  }
  return prompt;
}

}  // namespace bise
