#include "eval/filters.h"

#include <algorithm>
#include <cctype>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "text/regex.h"

namespace bise {
namespace {

std::string stripped(std::string_view text) {
  constexpr std::string_view kBlank = " \t\n\r\v\f";
  const std::size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(kBlank) - first + 1));
}

// Where a search goes on after a match, past an empty one by one character.
std::size_t after(std::string_view text, TextRange match) {
  if (match.end > match.begin) return match.end;
  std::size_t next = match.end + 1;
  while (next < text.size() && (static_cast<unsigned char>(text[next]) & 0xc0) == 0x80) ++next;
  return next;
}

// Python's "$" also stands before a newline at the end; Regex's does not.
std::string python_pattern(const std::string& pattern) {
  if (pattern.find("(?m") != std::string::npos) return pattern;
  std::string result;
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\' && i + 1 < pattern.size()) {
      result += {'\\', pattern[++i]};
      continue;
    }
    if (pattern[i] == '$' && !in_class) {
      result += "(?=\\n?\\z)";
      continue;
    }
    if (pattern[i] == '[') in_class = true;
    if (pattern[i] == ']') in_class = false;
    result += pattern[i];
  }
  return result;
}

// Python's re.findall, the groups of a match reduced as the harness does: the first that is not empty.
std::vector<std::string> find_all(const Regex& regex, std::string_view text) {
  std::vector<std::string> result;
  RegexScratch scratch;
  std::vector<TextRange> groups;
  for (std::size_t from = 0; from <= text.size();) {
    if (!regex.find_groups(text, from, scratch, groups)) break;
    const std::size_t first = groups.size() == 1 ? 0 : 1;
    std::string_view chosen;
    for (std::size_t g = first; g < groups.size() && chosen.empty(); ++g)
      chosen = text.substr(groups[g].begin, groups[g].end - groups[g].begin);
    result.emplace_back(chosen);
    from = after(text, groups[0]);
  }
  return result;
}

// re.sub(pattern, "", text).
std::string removed(const std::string& pattern, const std::string& text) {
  const Regex regex(python_pattern(pattern), "regexes_to_ignore");
  RegexScratch scratch;
  std::string result;
  std::size_t copied = 0;
  for (std::size_t from = 0; from <= text.size();) {
    const auto match = regex.find(text, from, scratch);
    if (!match) break;
    result.append(text, copied, match->begin - copied);
    copied = match->end;
    from = after(text, *match);
  }
  return result.append(text, copied);
}

std::string apply(const FilterStep& step, const std::string& text, const std::string& task) {
  if (step.function == "take_first") return text;
  if (step.function == "regex") {
    const auto matches = find_all(Regex(python_pattern(step.regex_pattern), task + ": regex_pattern"), text);
    const auto count = static_cast<std::int64_t>(matches.size());
    const std::int64_t index = step.group_select < 0 ? count + step.group_select : step.group_select;
    if (index < 0 || index >= count) return step.fallback;
    return stripped(matches[static_cast<std::size_t>(index)]);
  }
  if (step.function == "remove_whitespace") {
    const std::size_t first = text.find_first_not_of(" \t\n\r\v\f");
    return first == std::string::npos ? "" : text.substr(first);
  }
  if (step.function == "lowercase" || step.function == "uppercase") {
    std::string result = text;
    for (char& c : result)
      c = static_cast<char>(step.function == "lowercase" ? std::tolower(static_cast<unsigned char>(c))
                                                         : std::toupper(static_cast<unsigned char>(c)));
    return result;
  }
  throw Error("unknown filter")
      .at(task + ": filter_list")
      .expected("regex, take_first, remove_whitespace, lowercase or uppercase")
      .got(step.function);
}

}  // namespace

std::string apply_filters(const FilterConfig& filter, const std::string& text, const std::string& task) {
  std::string result = text;
  for (const FilterStep& step : filter.steps) result = apply(step, result, task);
  return result;
}

bool exact_match(const MetricConfig& metric, std::string prediction, std::string reference) {
  for (std::string* side : {&prediction, &reference}) {
    for (const std::string& pattern : metric.regexes_to_ignore) *side = removed(pattern, *side);
    if (metric.ignore_case)
      std::ranges::transform(*side, side->begin(), [](unsigned char c) { return std::tolower(c); });
    if (metric.ignore_punctuation) std::erase_if(*side, [](unsigned char c) { return std::ispunct(c); });
    if (metric.ignore_numbers) std::erase_if(*side, [](unsigned char c) { return std::isdigit(c); });
  }
  return prediction == reference;
}

}  // namespace bise
