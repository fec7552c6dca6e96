// A compiled pattern over UTF-8 text, with Unicode classes (PCRE2 behind it, compiled to machine code where
// possible). A Regex never changes: any number of threads may search with it, each with its own
// RegexScratch.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

struct TextRange {
  std::size_t begin = 0, end = 0;
  bool operator==(const TextRange&) const = default;
};

// What one thread needs to search; reusable for any number of searches with any Regex.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(const RegexScratch&) = delete;
  RegexScratch& operator=(const RegexScratch&) = delete;

 private:
  friend class Regex;
  struct State;
  std::unique_ptr<State> state_;
};

class Regex {
 public:
  // Throws Error with the place in the pattern when it is invalid; `where` names the pattern's origin.
  Regex(const std::string& pattern, const std::string& where);
  ~Regex();
  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;

  // The leftmost match that starts at `from` or after. `text` must be valid UTF-8 and `from` the start of a
  // character. Throws Error when the search needs more steps than any sane pattern does.
  std::optional<TextRange> find(std::string_view text, std::size_t from, RegexScratch& scratch) const;
  // The same with its groups: groups[0] is the whole match, a group that took no part is empty. False when
  // there is no match.
  bool find_groups(std::string_view text, std::size_t from, RegexScratch& scratch,
                   std::vector<TextRange>& groups) const;

 private:
  struct Code;
  // The number of pairs set, 0 when nothing matches; `data` is pcre2's.
  int search(std::string_view text, std::size_t from, RegexScratch& scratch, void* data) const;
  std::unique_ptr<Code> code_;
};

}  // namespace bise
