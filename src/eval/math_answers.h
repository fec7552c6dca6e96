// Answers of MATH-like tasks: taken out of solutions, brought to one form, compared (spec/evaluation.md
// section 3.1). Pure functions.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace bise {

inline constexpr const char* kInvalidMathAnswer = "[invalidanswer]";

// What the last \boxed{...} holds, braces matched; of "\boxed x$" what stands before the "$".
std::optional<std::string> boxed_answer(const std::string& text);
// What stands behind "Final Answer: The final answer is", or kInvalidMathAnswer.
std::string stated_final_answer(const std::string& text);

// Lewkowycz et al. 2022, appendix D: kLeaderboard as the Open LLM Leaderboard froze it, kMinerva as
// lm-evaluation-harness 0.4.13 corrected it.
enum class MathRules { kLeaderboard, kMinerva };
std::string normalized_math_answer(std::string answer, MathRules rules);

// Equal as texts, or expressions whose values agree wherever they are tried (latex_value.h). The harness asks
// sympy to simplify the difference.
bool same_math_answer(const std::string& a, const std::string& b);

// What an answer that follows no rule ends in: the last boxed part, the stated final answer, the last part
// between "$"s, or the last number.
std::string extracted_math_answer(const std::string& text);

// AIME: Hendrycks's normalization of both, then equality (hendrycks/math, math_equivalence.py).
bool same_aime_answer(const std::string& a, const std::string& b);
std::string aime_answer(const std::string& response);

}  // namespace bise
