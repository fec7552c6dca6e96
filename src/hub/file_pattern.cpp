#include "hub/file_pattern.h"

#include <algorithm>

namespace bise {
namespace {

// One code point each; a byte that is no UTF-8 is one by itself.
std::u32string code_points(std::string_view text) {
  std::u32string points;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80 ? 1 : lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
    char32_t point = length == 1 ? lead : lead & (0x7f >> length);
    std::size_t used = 1;
    while (used < length && i + used < text.size() && (text[i + used] & 0xc0) == 0x80)
      point = point << 6 | (text[i + used++] & 0x3f);
    points += point;
    i += used;
  }
  return points;
}

// The end of the set that begins after '[' at `begin`: the place of its ']', or npos when there is none.
std::size_t set_end(std::u32string_view pattern, std::size_t begin) {
  std::size_t at = begin;
  if (at < pattern.size() && pattern[at] == U'!') ++at;
  if (at < pattern.size() && pattern[at] == U']') ++at;
  return pattern.find(U']', at);
}

bool in_set(char32_t c, std::u32string_view set) {
  const bool negated = set.starts_with(U'!');
  if (negated) set.remove_prefix(1);
  bool found = false;
  for (std::size_t i = 0; i < set.size();) {
    if (i + 2 < set.size() && set[i + 1] == U'-') {
      found |= set[i] <= c && c <= set[i + 2];
      i += 3;
    } else {
      found |= set[i++] == c;
    }
  }
  return found != negated;
}

// Whether the pattern's element at `at` takes `c`; `at` moves behind it.
bool takes(std::u32string_view pattern, std::size_t& at, char32_t c) {
  const char32_t element = pattern[at++];
  if (element == U'?') return true;
  if (element == U'[') {
    const std::size_t end = set_end(pattern, at);
    if (end != pattern.npos) {
      const bool result = in_set(c, pattern.substr(at, end - at));
      at = end + 1;
      return result;
    }
  }
  return element == c;
}

std::string tidy(std::string_view text) {
  std::string path(text);
  std::ranges::replace(path, '\\', '/');
  return path;
}

bool matches_any(const std::string& path, const std::vector<std::string>& patterns) {
  return std::ranges::any_of(patterns, [&](const std::string& raw) {
    const std::string pattern = tidy(raw);
    return matches_pattern(path, pattern.ends_with('/') ? pattern + "*" : pattern);
  });
}

}  // namespace

bool matches_pattern(std::string_view name_text, std::string_view pattern_text) {
  const std::u32string name = code_points(name_text), pattern = code_points(pattern_text);
  // After a mismatch the last '*' takes one character more: linear in both for one star, never exponential.
  std::size_t n = 0, p = 0, star = pattern.npos, star_name = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == U'*') {
      star = p++;
      star_name = n;
      continue;
    }
    std::size_t next = p;
    if (p < pattern.size() && takes(pattern, next, name[n])) {
      p = next;
      ++n;
      continue;
    }
    if (star == pattern.npos) return false;
    p = star + 1;
    n = ++star_name;
  }
  while (p < pattern.size() && pattern[p] == U'*') ++p;
  return p == pattern.size();
}

bool is_selected(std::string_view path, const std::vector<std::string>& include,
                 const std::vector<std::string>& exclude) {
  const std::string name = tidy(path);
  return (include.empty() || matches_any(name, include)) && !matches_any(name, exclude);
}

}  // namespace bise
