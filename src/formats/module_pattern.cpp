#include "formats/module_pattern.h"

#include "base/error.h"
#include "formats/tensor_names.h"

namespace bise {

ModulePattern::ModulePattern(std::string text) : text_(std::move(text)) {
  constexpr std::size_t kMaxLength = 1000;
  if (text_.size() > kMaxLength)
    throw Error("module pattern is too long")
        .expected(fmt::format("at most {} characters", kMaxLength))
        .got(fmt::format("{}", text_.size()));
  if (!text_.starts_with("re:")) {
    // params.json lists Mistral-native module names.
    text_ = hugging_face_name(text_).value_or(canonical_name(text_));
    return;
  }
  try {
    // The polynomial matcher takes no exponential time on any pattern, and no back-references.
    regex_.emplace(text_.substr(3), std::regex::ECMAScript | std::regex_constants::__polynomial);
  } catch (const std::regex_error& problem) {
    throw Error("module pattern \"{}\" is no regular expression: {}", text_, problem.what());
  }
}

bool ModulePattern::matches(std::string_view name) const {
  if (regex_)
    return std::regex_search(name.begin(), name.end(), *regex_, std::regex_constants::match_continuous);
  return text_ == name || text_ == "Linear";
}

}  // namespace bise
