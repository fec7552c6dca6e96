#include "eval/filters.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "base/error.h"
#include "eval/python_regex.h"

namespace bise {
namespace {

// The first group that took part, as the harness reduces a match of several.
std::string reduced(const std::vector<std::string>& match) {
  for (std::size_t g = match.size() == 1 ? 0 : 1; g < match.size(); ++g)
    if (!match[g].empty()) return match[g];
  return "";
}

// The match that the step selects among all, stripped; nothing when there is none.
std::optional<std::string> selected(const FilterStep& step, const std::string& pattern,
                                    const std::string& text) {
  const auto matches = python_find_all(pattern, text);
  const auto count = static_cast<std::int64_t>(matches.size());
  const std::int64_t index = step.group_select < 0 ? count + step.group_select : step.group_select;
  if (index < 0 || index >= count) return std::nullopt;
  const std::vector<std::string>& match = matches[static_cast<std::size_t>(index)];
  const std::string text_of_match = reduced(match);
  if (text_of_match.empty() && match.size() > 2) return std::nullopt;
  return std::string(python_strip(text_of_match));
}

std::string without_ignored(const FilterStep& step, std::string text) {
  for (const std::string& pattern : step.regexes_to_ignore)
    text = python_sub(pattern, text, [](auto) { return std::string(); });
  if (step.ignore_case) text = python_lower(text);
  if (step.ignore_punctuation) text = python_sub(R"(\p{P})", text, [](auto) { return std::string(); });
  return text;
}

std::string letter(std::size_t index) {
  return std::string("(") + static_cast<char>('A' + static_cast<int>(index)) + ")";
}

// The pattern, else one of the choices' texts, else ": A": all give "(A)" (lm_eval/filters/extraction.py,
// MultiChoiceRegexFilter).
std::string multi_choice(const FilterStep& step, const std::string& text, const Document& document,
                         const std::string& where) {
  if (const auto found = selected(step, step.regex_pattern, text); found && !found->empty()) return *found;
  const Json& row = *document.row;
  if (!row.contains("choices") || !row["choices"].is_array() || row["choices"].size() > 26)
    throw Error("multi_choice_regex needs rows with a list of choices").at(where);
  std::string any, letters;
  std::map<std::string, std::string> letter_of;
  for (std::size_t i = 0; i < row["choices"].size(); ++i) {
    const Json& choice = row["choices"][i];
    const std::string plain = without_ignored(
        step, std::string(python_strip(choice.is_string() ? choice.get<std::string>() : choice.dump())));
    any += (i ? "|" : "") + python_escape(plain);
    letters += (i ? "|" : "") + letter(i).substr(1, 1);
    letter_of[plain] = letter(i);
  }
  if (const auto found = selected(step, any, without_ignored(step, text)); found && !found->empty())
    return letter_of.contains(*found) ? letter_of[*found] : *found;
  if (const auto found = selected(step, R"(:[\s]*()" + letters + ")", text)) return "(" + *found + ")";
  return step.fallback;
}

std::string apply(const FilterStep& step, const std::string& text, const Document& document,
                  const std::string& task) {
  const std::string where = task + ": filter_list";
  if (step.function == "take_first") return text;
  if (step.function == "regex") {
    const auto matches = selected(step, step.regex_pattern, text);
    return matches.value_or(step.fallback);
  }
  if (step.function == "multi_choice_regex") return multi_choice(step, text, document, where);
  if (step.function == "remove_whitespace") return std::string(python_strip(text));
  if (step.function == "lowercase") return python_lower(text);
  if (step.function == "uppercase") {
    std::string result = text;
    std::ranges::transform(result, result.begin(), [](unsigned char c) { return std::toupper(c); });
    return result;
  }
  if (step.function == "before_fence") return text.substr(0, text.find("```"));
  if (step.function == "prepend_prompt") return require_string(*document.row, "prompt", where) + text;
  throw Error("unknown filter")
      .at(where)
      .expected("regex, multi_choice_regex, take_first, remove_whitespace, lowercase or uppercase")
      .got(step.function);
}

}  // namespace

std::string apply_filters(const FilterConfig& filter, const std::string& text, const Document& document,
                          const std::string& task) {
  std::string result = text;
  for (const FilterStep& step : filter.steps) result = apply(step, result, document, task);
  return result;
}

bool exact_match(const MetricConfig& metric, std::string prediction, std::string reference) {
  for (std::string* side : {&prediction, &reference}) {
    for (const std::string& pattern : metric.regexes_to_ignore)
      *side = python_sub(pattern, *side, [](auto) { return std::string(); });
    if (metric.ignore_case) *side = python_lower(*side);
    if (metric.ignore_punctuation) std::erase_if(*side, [](unsigned char c) { return std::ispunct(c); });
    if (metric.ignore_numbers) std::erase_if(*side, [](unsigned char c) { return std::isdigit(c); });
  }
  return prediction == reference;
}

}  // namespace bise
