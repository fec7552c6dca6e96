#include "text/stop_strings.h"

#include <algorithm>

namespace bise {

std::size_t partial_match_length(std::string_view text, std::string_view word) {
  if (word.empty()) return 0;
  for (std::size_t length = std::min(word.size() - 1, text.size()); length > 0; --length) {
    const std::string_view end = text.substr(text.size() - length);
    if (end.front() == word.front() && word.starts_with(end)) return length;
  }
  return 0;
}

StopStrings::StopStrings(std::vector<std::string> stop, bool include) : include_(include) {
  if (!stop.empty()) stop_ = std::make_shared<const std::vector<std::string>>(std::move(stop));
}

std::string StopStrings::push(std::string_view text, bool may_stop) {
  if (matched_) return {};
  if (!stop_) return std::string(text);
  const std::size_t seen = held_.size();
  held_ += text;
  std::size_t end = 0;
  if (may_stop) matched_ = first_match(seen, end);
  if (matched_) {
    held_.resize(include_ ? end : end - matched_->size());
    return std::move(held_);
  }
  std::size_t keep = 0;
  for (const std::string& word : *stop_) keep = std::max(keep, partial_match_length(held_, word));
  std::string certain = held_.substr(0, held_.size() - keep);
  held_.erase(0, certain.size());
  return certain;
}

std::string StopStrings::finish() {
  return matched_ ? std::string() : std::move(held_);
}

// Matches that end in held_ after `seen`; `end` is where the returned one does.
const std::string* StopStrings::first_match(std::size_t seen, std::size_t& end) const {
  const std::string* first = nullptr;
  end = held_.size() + 1;
  for (const std::string& word : *stop_) {
    const std::size_t from = seen + 1 > word.size() ? seen + 1 - word.size() : 0;
    const std::size_t begin = held_.find(word, from);
    if (begin == std::string::npos || begin + word.size() >= end) continue;
    end = begin + word.size();
    first = &word;
  }
  return first;
}

}  // namespace bise
