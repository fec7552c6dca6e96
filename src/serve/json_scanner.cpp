#include "serve/json_scanner.h"

namespace bise {

std::size_t JsonValueScanner::scan(std::string_view text) {
  for (std::size_t i = 0; i < text.size() && !done_; ++i) {
    const char c = text[i];
    if (in_string_) {
      if (escaped_) {
        escaped_ = false;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '"') {
        in_string_ = false;
        done_ = depth_ == 0;
      }
    } else if (scalar_) {
      if (std::string_view(",]} \t\r\n").find(c) != std::string_view::npos) {
        done_ = true;
        return i;
      }
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      done_ = depth_ <= 1;
      if (depth_ > 0) --depth_;
    } else if (!started_) {
      scalar_ = true;
    }
    started_ = true;
    if (done_) return i + 1;
  }
  return done_ ? 0 : text.size();
}

}  // namespace bise
