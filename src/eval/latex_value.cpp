#include "eval/latex_value.h"

#include <array>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <numbers>
#include <string>
#include <utility>

namespace bise {
namespace {

constexpr int kMaxDepth = 60;
constexpr std::size_t kMaxLength = 2000;
constexpr double kTolerance = 1e-9;  // of the larger magnitude

using Function = double (*)(double);
constexpr std::array kFunctions = {
    std::pair{"\\sin", static_cast<Function>(std::sin)},
    std::pair{"\\cos", static_cast<Function>(std::cos)},
    std::pair{"\\tan", static_cast<Function>(std::tan)},
    std::pair{"\\arcsin", static_cast<Function>(std::asin)},
    std::pair{"\\arccos", static_cast<Function>(std::acos)},
    std::pair{"\\arctan", static_cast<Function>(std::atan)},
    std::pair{"\\ln", static_cast<Function>(std::log)},
    std::pair{"\\log", static_cast<Function>(std::log)},
    std::pair{"\\exp", static_cast<Function>(std::exp)},
};

// Recursive descent; NaN is the value of what is no expression, and spreads.
class Parser {
 public:
  Parser(std::string_view text, const std::function<double(char)>& variable)
      : text_(text), variable_(variable) {}

  double whole() {
    const double value = sum();
    return at_end() ? value : failed();
  }

 private:
  static double failed() { return std::nan(""); }

  bool at_end() {
    skip();
    return at_ == text_.size();
  }
  void skip() {
    while (at_ < text_.size()) {
      const std::string_view rest = text_.substr(at_);
      std::size_t length = 0;
      for (const std::string_view blank :
           {"\\left", "\\right", "\\,", "\\;", "\\!", "\\ ", " ", "\n", "~", "$"})
        if (rest.starts_with(blank)) length = std::max(length, blank.size());
      if (length == 0) return;
      at_ += length;
    }
  }
  bool take(std::string_view token) {
    skip();
    if (!text_.substr(at_).starts_with(token)) return false;
    // A command's name ends where letters do.
    const std::size_t end = at_ + token.size();
    if (token.size() > 1 && token[0] == '\\' && std::isalpha(static_cast<unsigned char>(token.back())) &&
        end < text_.size() && std::isalpha(static_cast<unsigned char>(text_[end])))
      return false;
    at_ = end;
    return true;
  }
  char peek() {
    skip();
    return at_ < text_.size() ? text_[at_] : '\0';
  }

  double sum() {
    if (++depth_ > kMaxDepth) return at_ = text_.size(), failed();
    double value = product();
    while (true) {
      if (take("+")) {
        value += product();
      } else if (take("-")) {
        value -= product();
      } else {
        break;
      }
    }
    --depth_;
    return value;
  }

  bool starts_factor() {
    const char c = peek();
    return std::isalnum(static_cast<unsigned char>(c)) || c == '(' || c == '{' || c == '\\' || c == '.' ||
           c == '[';
  }

  double product() {
    double value = signed_power();
    while (true) {
      if (take("\\cdot") || take("\\times") || take("*")) {
        value *= signed_power();
      } else if (take("\\div") || take("/")) {
        value /= signed_power();
      } else if (starts_factor()) {
        const std::size_t before = at_;
        value *= power();
        if (at_ == before) return failed();  // a command that is none of ours
      } else {
        return value;
      }
    }
  }

  double signed_power() {
    bool negative = false;
    while (true) {
      if (take("-")) {
        negative = !negative;
      } else if (!take("+")) {
        break;
      }
    }
    const double value = power();
    return negative ? -value : value;
  }

  double power() {
    double value = atom();
    while (true) {
      if (take("^")) {
        value = std::pow(value, argument());
      } else if (take("!")) {
        value = value >= 0 && value <= 100 && value == std::floor(value) ? std::tgamma(value + 1) : failed();
      } else if (take("\\%") || take("%")) {
        value /= 100;
      } else {
        return value;
      }
    }
  }

  // "{...}", or the one character or command that stands for it.
  double argument() {
    if (take("{")) return closed("}");
    const char c = peek();
    if (std::isdigit(static_cast<unsigned char>(c))) return ++at_, c - '0';
    if (c == '-') return signed_power();
    return atom();
  }

  double closed(std::string_view end) {
    const double value = sum();
    return take(end) ? value : failed();
  }

  double number() {
    std::string digits;
    while (at_ < text_.size() && (std::isdigit(static_cast<unsigned char>(text_[at_])) || text_[at_] == '.'))
      digits += text_[at_++];
    char* end = nullptr;
    const double value = std::strtod(digits.c_str(), &end);
    return *end == '\0' ? value : failed();
  }

  double root() {
    double index = 2;
    if (take("[")) index = closed("]");
    const double value = argument();
    return index == 3 ? std::cbrt(value) : std::pow(value, 1 / index);
  }

  double atom() {
    const char c = peek();
    if (std::isdigit(static_cast<unsigned char>(c)) || c == '.') return number();
    if (take("(")) return closed(")");
    if (take("[")) return closed("]");
    if (take("{")) return closed("}");
    if (take("\\frac") || take("\\dfrac") || take("\\tfrac")) {
      const double above = argument();
      return above / argument();
    }
    if (take("\\sqrt")) return root();
    if (take("\\pi")) return std::numbers::pi;
    for (const auto& [name, function] : kFunctions)
      if (take(name)) {
        if (!take("^")) return function(power());
        const double exponent = argument();
        return std::pow(function(power()), exponent);
      }
    if (std::isalpha(static_cast<unsigned char>(c))) return ++at_, variable_(c);
    return failed();
  }

  std::string_view text_;
  const std::function<double(char)>& variable_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::optional<double> latex_value(std::string_view text, const std::function<double(char)>& variable) {
  if (text.empty() || text.size() > kMaxLength) return std::nullopt;
  const double value = Parser(text, variable).whole();
  return std::isfinite(value) ? std::optional(value) : std::nullopt;
}

bool same_latex_value(std::string_view a, std::string_view b) {
  int compared = 0;
  for (const double shift : {0.3, 0.71, 1.9, 3.37}) {
    const auto variable = [&](char name) { return shift + 0.137 * (name % 32); };
    const auto x = latex_value(a, variable), y = latex_value(b, variable);
    if (x.has_value() != y.has_value()) return false;
    if (!x) continue;
    if (!(std::abs(*x - *y) <= kTolerance * std::max({1.0, std::abs(*x), std::abs(*y)}))) return false;
    ++compared;
  }
  return compared > 0;
}

}  // namespace bise
