// How quantization configs name modules: an exact name, the class "Linear", or "re:PATTERN", which must match
// from the start of the name (Python's re.match). spec/quantization.md section 1.2.
#pragma once

#include <optional>
#include <regex>
#include <string>
#include <string_view>

namespace bise {

class ModulePattern {
 public:
  // Throws Error for an invalid or overlong regular expression.
  explicit ModulePattern(std::string text);

  // `name` is that of a linear module.
  bool matches(std::string_view name) const;
  const std::string& text() const { return text_; }

 private:
  std::string text_;
  std::optional<std::regex> regex_;
};

}  // namespace bise
