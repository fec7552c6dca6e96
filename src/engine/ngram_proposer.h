// Guesses how a sequence goes on by looking up what followed the same words before (prompt lookup decoding):
// the longest suffix n-gram of min <= n <= max tokens that occurs earlier, at its earliest place. Indexes a
// token once, so a step costs at most max - min + 1 look-ups whatever the length. Owned by its sequence.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace bise {

class NgramProposer {
 public:
  // 1 <= min <= max.
  NgramProposer(std::int64_t min, std::int64_t max);

  // Reads the tokens that `history` has more than at the last call.
  void update(std::span<const std::int32_t> history);
  // Up to `count` tokens of `history`, which is the one given last: those after the match, if there is one.
  std::span<const std::int32_t> propose(std::span<const std::int32_t> history, std::int64_t count) const;

 private:
  // For n-grams the position after their first occurrence: open addressing, 0 = empty. Of n > min only those
  // that are not found by extending the first occurrence of their last n - 1 tokens: so a text without
  // repetitions fills the first table only.
  struct Table {
    std::vector<std::uint32_t> ends;
    std::size_t used = 0;
  };
  std::uint32_t find_or_insert(std::size_t table, std::span<const std::int32_t> history, std::size_t end);
  void grow(Table& table, std::size_t n, std::span<const std::int32_t> history);

  std::int64_t min_;
  std::vector<Table> tables_;  // [max - min + 1]
  std::size_t indexed_ = 0;    // tokens
  std::size_t match_ = 0;      // position after the match; 0: none
};

}  // namespace bise
