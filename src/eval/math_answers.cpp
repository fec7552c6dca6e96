#include "eval/math_answers.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <span>
#include <utility>
#include <vector>

#include "eval/latex_value.h"
#include "eval/python_regex.h"

namespace bise {
namespace {

using Groups = std::span<const std::string_view>;

constexpr std::array kSubstitutions = {
    std::pair{"an ", ""},          std::pair{"a ", ""},
    std::pair{".$", "$"},          std::pair{"\\$", ""},
    std::pair{"\\ ", ""},          std::pair{" ", ""},
    std::pair{"mbox", "text"},     std::pair{",\\text{and}", ","},
    std::pair{"\\text{and}", ","}, std::pair{"\\text{m}", "\\text{}"},
};
constexpr std::array kRemoved = {
    "square",       "ways",
    "integers",     "dollars",
    "mph",          "inches",
    "ft",           "hours",
    "km",           "units",
    "\\ldots",      "sue",
    "points",       "feet",
    "minutes",      "digits",
    "cents",        "degrees",
    "cm",           "gm",
    "pounds",       "meters",
    "meals",        "edges",
    "students",     "childrentickets",
    "multiples",    "\\text{s}",
    "\\text{.}",    "\\text{\ns}",
    "\\text{}^2",   "\\text{}^3",
    "\\text{\n}",   "\\text{}",
    "\\mathrm{th}", "^\\circ",
    "^{\\circ}",    "\\;",
    ",\\!",         "{,}",
    "\"",           "\\dots",
};

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (std::size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

bool is_word(std::string_view text) {
  return std::ranges::all_of(text, [](unsigned char c) { return std::isalpha(c); });
}

bool all_digits(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) { return std::isdigit(c); });
}

// Outside of the names of LaTeX commands.
std::string without_glued(const std::string& text, std::string_view word) {
  std::string result, part;
  const auto flush = [&] {
    replace_all(part, word, "");
    result += std::exchange(part, "");
  };
  for (std::size_t at = 0; at < text.size();) {
    std::size_t end = at + 1;
    while (text[at] == '\\' && end < text.size() && std::isalpha(static_cast<unsigned char>(text[end])))
      ++end;
    if (text[at] == '\\' && end > at + 1) {
      flush();
      result.append(text, at, end - at);
    } else {
      part += text[at];
      end = at + 1;
    }
    at = end;
  }
  flush();
  return result;
}

void remove_expressions(std::string& answer, MathRules rules) {
  for (const std::string_view removed : kRemoved) {
    if (rules == MathRules::kMinerva && is_word(removed)) {
      answer = without_glued(answer, removed);
    } else {
      replace_all(answer, removed, "");
    }
  }
}

std::string second_group(Groups groups) {
  return std::string(groups[2]);
}

}  // namespace

std::optional<std::string> boxed_answer(const std::string& text) {
  constexpr std::string_view kBox = "\\boxed", kSpaced = "\\boxed ";
  if (const std::size_t spaced = text.rfind(kSpaced); spaced != std::string::npos) {
    const std::string rest = text.substr(spaced + kSpaced.size());
    return rest.substr(0, rest.find('$'));
  }
  const std::size_t begin = text.rfind(kBox);
  if (begin == std::string::npos || text.compare(begin + kBox.size(), 1, "{") != 0) return std::nullopt;
  int open = 0;
  for (std::size_t at = begin; at < text.size(); ++at) {
    if (text[at] == '{') ++open;
    if (text[at] == '}' && --open == 0)
      return text.substr(begin + kBox.size() + 1, at - begin - kBox.size() - 1);
  }
  return std::nullopt;
}

std::string stated_final_answer(const std::string& text) {
  const auto match = python_search(R"(Final Answer: The final answer is(.*?). I hope it is correct.)",
                                   text + "I hope it is correct.");
  return match ? std::string(python_strip((*match)[1])) : kInvalidMathAnswer;
}

std::string normalized_math_answer(std::string answer, MathRules rules) {
  if (const std::size_t equals = answer.rfind('='); equals != std::string::npos) answer.erase(0, equals + 1);
  if (rules == MathRules::kMinerva)
    for (const std::string_view removed : kRemoved)
      if (is_word(removed))
        answer = python_sub("(?<!\\\\)\\b" + std::string(removed) + "\\b", answer,
                            [](Groups) { return std::string(); });
  for (const auto& [from, to] : kSubstitutions) replace_all(answer, from, to);
  remove_expressions(answer, rules);
  answer = python_sub(R"((.*?)(\$)(.*?)(\$)(.*))", answer,
                      [](Groups groups) { return "$" + std::string(groups[3]) + "$"; });
  for (const char* pattern : {R"((\\text\{)(.*?)(\}))", R"((\\textbf\{)(.*?)(\}))",
                              R"((\\overline\{)(.*?)(\}))", R"((\\boxed\{)(.*)(\}))"})
    answer = python_sub(pattern, answer, second_group);
  answer = python_sub(R"((frac)([^{])(.))", answer, [](Groups groups) {
    return "frac{" + std::string(groups[2]) + "}{" + std::string(groups[3]) + "}";
  });
  if (rules == MathRules::kMinerva)
    answer = python_sub(R"((sqrt)(\[[^\]]*\])(\w))", answer, [](Groups groups) {
      return "sqrt" + std::string(groups[2]) + "{" + std::string(groups[3]) + "}";
    });
  answer = python_sub(rules == MathRules::kMinerva ? R"((sqrt)(?!\[)([^{]))" : R"((sqrt)([^{]))", answer,
                      [](Groups groups) { return "sqrt{" + std::string(groups[2]) + "}"; });
  replace_all(answer, "$", "");
  std::string digits = answer;
  std::erase(digits, ',');
  const bool joined = rules == MathRules::kMinerva
                          ? python_search(R"(\A-?\d{1,3}(,\d{3})+\z)", answer).has_value()
                          : all_digits(digits);
  return joined ? digits : answer;
}

bool same_math_answer(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return false;
  return python_strip(a) == python_strip(b) || same_latex_value(a, b);
}

std::string extracted_math_answer(const std::string& text) {
  if (const auto boxed = boxed_answer(text)) return *boxed;
  if (const std::string stated = stated_final_answer(text); stated != kInvalidMathAnswer) return stated;
  if (const auto parts = python_find_all(R"(\$([^$]+)\$)", text); !parts.empty()) return parts.back()[1];
  if (const auto numbers = python_find_all(R"(-?\d[\d,]*(?:\.\d+)?)", text); !numbers.empty())
    return numbers.back()[0];
  return kInvalidMathAnswer;
}

namespace {

// Nothing where the Python original raises an exception.
using MaybeText = std::optional<std::string>;

std::vector<std::string> split_at(const std::string& text, std::string_view mark) {
  std::vector<std::string> parts;
  std::size_t from = 0;
  for (std::size_t at; (at = text.find(mark, from)) != std::string::npos; from = at + mark.size())
    parts.push_back(text.substr(from, at - from));
  parts.push_back(text.substr(from));
  return parts;
}

MaybeText with_braced_roots(const std::string& text) {
  const auto parts = split_at(text, "\\sqrt");
  std::string result = parts[0];
  for (std::size_t i = 1; i < parts.size(); ++i) {
    if (parts[i].empty()) return std::nullopt;
    result += parts[i][0] == '{' ? "\\sqrt" + parts[i]
                                 : "\\sqrt{" + parts[i].substr(0, 1) + "}" + parts[i].substr(1);
  }
  return result;
}

MaybeText with_braced_fractions(const std::string& text) {
  const auto parts = split_at(text, "\\frac");
  std::string result = parts[0];
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const std::string& part = parts[i];
    if (part.empty()) return std::nullopt;
    result += "\\frac";
    if (part[0] == '{') {
      result += part;
      continue;
    }
    if (part.size() < 2) return text;
    const std::string above = "{" + part.substr(0, 1) + "}", rest = part.substr(2);
    result += part[1] == '{' ? above + "{" + rest : above + "{" + part.substr(1, 1) + "}" + rest;
  }
  return result;
}

// int() of Python for what can stand here.
std::optional<long long> integer(const std::string& text) {
  const std::size_t skip = text.starts_with('+') ? 1 : 0;
  long long value = 0;
  const auto [end, error] = std::from_chars(text.data() + skip, text.data() + text.size(), value);
  if (text.size() == skip || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

MaybeText with_fraction_of_slash(const std::string& text) {
  const auto parts = split_at(text, "/");
  if (parts.size() != 2) return text;
  const auto a = integer(parts[0]), b = integer(parts[1]);
  if (!a || !b) return std::nullopt;
  if (text != std::to_string(*a) + "/" + std::to_string(*b)) return text;
  return "\\frac{" + std::to_string(*a) + "}{" + std::to_string(*b) + "}";
}

MaybeText stripped_aime_answer(std::string text) {
  for (const auto& [from, to] : {std::pair{"\n", ""},
                                 {"\\!", ""},
                                 {"\\\\", "\\"},
                                 {"tfrac", "frac"},
                                 {"dfrac", "frac"},
                                 {"\\left", ""},
                                 {"\\right", ""},
                                 {"^{\\circ}", ""},
                                 {"^\\circ", ""},
                                 {"\\$", ""}})
    replace_all(text, from, to);
  if (const auto parts = split_at(text, "\\text{ "); parts.size() > 1) {
    if (parts.size() != 2) return std::nullopt;
    text = parts[0];
  }
  for (const auto& [from, to] : {std::pair{"\\%", ""}, {" .", " 0."}, {"{.", "{0."}})
    replace_all(text, from, to);
  if (text.empty()) return text;
  if (text[0] == '.') text.insert(0, "0");
  if (const auto sides = split_at(text, "="); sides.size() == 2 && sides[0].size() <= 2) text = sides[1];
  const MaybeText rooted = with_braced_roots(text);
  if (!rooted) return std::nullopt;
  text = *rooted;
  std::erase(text, ' ');
  const MaybeText braced = with_braced_fractions(text);
  if (!braced) return std::nullopt;
  text = *braced == "0.5" ? "\\frac{1}{2}" : *braced;
  return with_fraction_of_slash(text);
}

}  // namespace

bool same_aime_answer(const std::string& a, const std::string& b) {
  const MaybeText left = stripped_aime_answer(a), right = stripped_aime_answer(b);
  return left && right ? *left == *right : a == b;
}

std::string aime_answer(const std::string& response) {
  if (const auto boxed = boxed_answer(response)) return *boxed;
  const std::size_t first = response.find('$'), last = response.rfind('$');
  return first == last ? response : response.substr(first + 1, last - first - 1);
}

}  // namespace bise
