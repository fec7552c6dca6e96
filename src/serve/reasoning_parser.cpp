#include "serve/reasoning_parser.h"

#include <algorithm>
#include <array>

#include "text/stop_strings.h"

namespace bise {
namespace {

constexpr std::array<std::string_view, 2> kStarts = {"[THINK]", "<think>"};
constexpr std::array<std::string_view, 2> kEnds = {"[/THINK]", "</think>"};

}  // namespace

void ReasoningParser::push(std::string_view text, std::string& reasoning, std::string& content) {
  if (state_ == State::kAnswer) {
    content += text;
    return;
  }
  held_ += text;
  if (state_ == State::kStart) {
    const std::size_t begin = held_.find_first_not_of(" \t\r\n");
    if (begin == std::string::npos) return;
    const std::string_view first = std::string_view(held_).substr(begin);
    const auto start = std::find_if(kStarts.begin(), kStarts.end(),
                                    [&](std::string_view mark) { return first.starts_with(mark); });
    if (start == kStarts.end()) {
      for (const std::string_view mark : kStarts)
        if (mark.starts_with(first)) return;
      state_ = State::kAnswer;
      content += held_;
      held_.clear();
      return;
    }
    held_.erase(0, begin + start->size());
    state_ = State::kThought;
  }
  std::size_t end = std::string::npos, mark_size = 0, keep = 0;
  for (const std::string_view mark : kEnds) {
    if (const std::size_t at = held_.find(mark); at < end) {
      end = at;
      mark_size = mark.size();
    }
    keep = std::max(keep, partial_match_length(held_, mark));
  }
  if (end == std::string::npos) {
    reasoning.append(held_, 0, held_.size() - keep);
    held_.erase(0, held_.size() - keep);
    return;
  }
  reasoning.append(held_, 0, end);
  content.append(held_, end + mark_size);
  held_.clear();
  state_ = State::kAnswer;
}

void ReasoningParser::finish(std::string& reasoning, std::string& content) {
  (state_ == State::kThought ? reasoning : content) += held_;
  held_.clear();
}

}  // namespace bise
