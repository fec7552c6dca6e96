// The value of a mathematical expression in LaTeX, for comparing answers that are written differently.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

namespace bise {

// Numbers, + - * / ^, implicit products, \frac, \sqrt, \pi, parentheses, elementary functions, factorials,
// percent; single letters are variables, whose values `variable` gives. Nothing when `text` is anything else,
// or has no finite value there.
std::optional<double> latex_value(std::string_view text, const std::function<double(char)>& variable);

// Whether two expressions have the same value for several choices of their variables.
bool same_latex_value(std::string_view a, std::string_view b);

}  // namespace bise
