// Sets of characters, as regular expressions and grammars write them, and as bytes.
#pragma once

#include <cstdint>
#include <vector>

#include "grammar/expression.h"

namespace bise {

// Unicode scalar values in sorted, disjoint ranges. Surrogates are never members.
class UnicodeSet {
 public:
  struct Range {
    char32_t low, high;
  };
  UnicodeSet() = default;
  explicit UnicodeSet(std::vector<Range> ranges);  // in any order
  static UnicodeSet all() { return UnicodeSet({{0, 0x10FFFF}}); }

  const std::vector<Range>& ranges() const { return ranges_; }
  bool empty() const { return ranges_.empty(); }
  bool has(char32_t code) const;
  UnicodeSet with(const UnicodeSet& other) const;
  UnicodeSet without(const UnicodeSet& other) const;
  UnicodeSet inverted() const { return all().without(*this); }
  // With the other letter case of every ASCII letter.
  UnicodeSet folded() const;

 private:
  std::vector<Range> ranges_;
};

// One character of the set in UTF-8.
Expr utf8_character(const UnicodeSet& set);
// One character of the set as it stands inside a JSON string: quote, backslash and control characters as
// escapes, all others as themselves.
Expr json_string_character(const UnicodeSet& set);

}  // namespace bise
