// Finds where a JSON value ends in text that arrives in pieces. It does not check the value.
#pragma once

#include <cstddef>
#include <string_view>

namespace bise {

class JsonValueScanner {
 public:
  // How much of `text` belongs to the value; done() tells whether it ended there. The value begins at the
  // first byte ever given. A number or literal ends before the first byte that cannot be part of it.
  std::size_t scan(std::string_view text);
  bool done() const { return done_; }
  void reset() { *this = JsonValueScanner(); }

 private:
  std::size_t depth_ = 0;
  bool started_ = false, in_string_ = false, escaped_ = false, scalar_ = false, done_ = false;
};

}  // namespace bise
