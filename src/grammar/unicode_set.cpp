#include "grammar/unicode_set.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "text/utf8.h"

namespace bise {
namespace {

// The sequences of byte ranges that spell [low, high] in UTF-8, by splitting where the number of bytes or a
// leading byte changes (Ken Thompson's construction, as in RE2).
void add_range(char32_t low, char32_t high, std::vector<Expr>& out) {
  for (const char32_t last : {char32_t{0x7F}, char32_t{0x7FF}, char32_t{0xFFFF}})
    if (low <= last && last < high) {
      add_range(low, last, out);
      add_range(last + 1, high, out);
      return;
    }
  std::string first, final;
  append_utf8(low, first);
  append_utf8(high, final);
  // All trailing bytes below a differing byte must run through their whole range.
  for (int shift = 6; shift < 6 * static_cast<int>(first.size()); shift += 6) {
    const char32_t rest = (char32_t{1} << shift) - 1;
    if ((low & ~rest) == (high & ~rest)) break;
    if ((low & rest) != 0) {
      add_range(low, low | rest, out);
      add_range((low | rest) + 1, high, out);
      return;
    }
    if ((high & rest) != rest) {
      add_range(low, (high & ~rest) - 1, out);
      add_range(high & ~rest, high, out);
      return;
    }
  }
  std::vector<Expr> bytes;
  for (std::size_t i = 0; i < first.size(); ++i)
    bytes.push_back(byte_range(static_cast<std::uint8_t>(first[i]), static_cast<std::uint8_t>(final[i])));
  out.push_back(sequence(std::move(bytes)));
}

}  // namespace

UnicodeSet::UnicodeSet(std::vector<Range> ranges) {
  std::vector<Range> scalars;
  for (const Range& range : ranges) {
    if (range.low < 0xD800) scalars.push_back({range.low, std::min<char32_t>(range.high, 0xD7FF)});
    if (range.high > 0xDFFF) scalars.push_back({std::max<char32_t>(range.low, 0xE000), range.high});
  }
  std::sort(scalars.begin(), scalars.end(), [](const Range& a, const Range& b) { return a.low < b.low; });
  for (const Range& range : scalars) {
    if (range.low > range.high) continue;
    if (!ranges_.empty() && range.low <= ranges_.back().high + 1) {
      ranges_.back().high = std::max(ranges_.back().high, range.high);
    } else {
      ranges_.push_back(range);
    }
  }
}

bool UnicodeSet::has(char32_t code) const {
  return std::any_of(ranges_.begin(), ranges_.end(),
                     [&](const Range& range) { return range.low <= code && code <= range.high; });
}

UnicodeSet UnicodeSet::with(const UnicodeSet& other) const {
  std::vector<Range> ranges = ranges_;
  ranges.insert(ranges.end(), other.ranges_.begin(), other.ranges_.end());
  return UnicodeSet(std::move(ranges));
}

UnicodeSet UnicodeSet::without(const UnicodeSet& other) const {
  std::vector<Range> ranges;
  for (Range range : ranges_) {
    for (const Range& hole : other.ranges_) {
      if (hole.high < range.low || hole.low > range.high) continue;
      if (hole.low > range.low) ranges.push_back({range.low, hole.low - 1});
      range.low = hole.high + 1;
      if (range.low > range.high) break;
    }
    if (range.low <= range.high) ranges.push_back(range);
  }
  return UnicodeSet(std::move(ranges));
}

UnicodeSet UnicodeSet::folded() const {
  std::vector<Range> ranges = ranges_;
  for (const Range& range : ranges_) {
    const auto add = [&](char32_t first, char32_t last, char32_t offset) {
      const char32_t low = std::max(range.low, first), high = std::min(range.high, last);
      if (low <= high) ranges.push_back({low + offset, high + offset});
    };
    add('a', 'z', static_cast<char32_t>('A' - 'a'));
    add('A', 'Z', 'a' - 'A');
  }
  return UnicodeSet(std::move(ranges));
}

Expr utf8_character(const UnicodeSet& set) {
  std::vector<Expr> parts;
  for (const UnicodeSet::Range& range : set.ranges()) add_range(range.low, range.high, parts);
  return choice(std::move(parts));
}

Expr json_string_character(const UnicodeSet& set) {
  static const UnicodeSet escaped({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}});
  std::vector<Expr> parts = {utf8_character(set.without(escaped))};
  for (char32_t code = 0; code <= '\\'; ++code) {
    if (!escaped.has(code) || !set.has(code)) continue;
    switch (code) {
      case '"': parts.push_back(literal("\\\"")); break;
      case '\\': parts.push_back(literal("\\\\")); break;
      case '\b': parts.push_back(literal("\\b")); break;
      case '\f': parts.push_back(literal("\\f")); break;
      case '\n': parts.push_back(literal("\\n")); break;
      case '\r': parts.push_back(literal("\\r")); break;
      case '\t': parts.push_back(literal("\\t")); break;
      default: parts.push_back(literal(fmt::format("\\u{:04x}", static_cast<unsigned>(code))));
    }
  }
  return choice(std::move(parts));
}

}  // namespace bise
