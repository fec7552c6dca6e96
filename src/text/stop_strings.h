// Ends a text that arrives in pieces at the first of several stop strings. Part of a stop string may stand at
// the end of what has come so far: that much is held back. One object serves one text and one thread.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

class StopStrings {
 public:
  StopStrings() = default;
  // None of `stop` is empty. `include`: the text ends after the stop string instead of before it.
  explicit StopStrings(std::vector<std::string> stop, bool include = false);

  // The text that is certain now; "" once stopped. Of several matches the one that is complete first counts
  // (of those that end together the first listed), whatever the pieces. `may_stop` false: a match that ends
  // in this piece is ordinary text.
  std::string push(std::string_view text, bool may_stop = true);
  // What is still held back; "" when a stop string came.
  std::string finish();

  // The stop string that came, or null.
  const std::string* matched() const { return matched_; }

 private:
  const std::string* first_match(std::size_t seen, std::size_t& end) const;

  std::shared_ptr<const std::vector<std::string>> stop_;  // null: none; shared by copies
  bool include_ = false;
  std::string held_;
  const std::string* matched_ = nullptr;
};

// How many bytes at the end of `text` are the beginning, but not the whole, of `word`.
std::size_t partial_match_length(std::string_view text, std::string_view word);

}  // namespace bise
