#include "text/jinja/text.h"

#include <algorithm>

namespace bise::jinja {

void Text::append(std::string_view bytes, bool trusted) {
  if (bytes.empty()) return;
  bytes_.append(bytes);
  if (!runs_.empty() && runs_.back().trusted == trusted) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), trusted});
  }
}

std::vector<Text::Run>::const_iterator Text::run_at(std::size_t position) const {
  return std::upper_bound(runs_.begin(), runs_.end(), position,
                          [](std::size_t at, const Run& run) { return at < run.end; });
}

void Text::append_part(const Text& other, std::size_t begin, std::size_t end) {
  if (&other == this) {
    append(part(begin, end));
    return;
  }
  for (auto run = other.run_at(begin); begin < end; ++run) {
    const std::size_t stop = std::min(run->end, end);
    append(std::string_view(other.bytes_).substr(begin, stop - begin), run->trusted);
    begin = stop;
  }
}

Text Text::part(std::size_t begin, std::size_t end) const {
  Text result;
  result.append_part(*this, begin, end);
  return result;
}

bool Text::trusted_at(std::size_t position) const {
  return run_at(position)->trusted;
}

std::vector<TextSegment> Text::segments() const {
  std::vector<TextSegment> result;
  std::size_t begin = 0;
  for (const Run& run : runs_) {
    result.push_back({bytes_.substr(begin, run.end - begin), run.trusted});
    begin = run.end;
  }
  return result;
}

}  // namespace bise::jinja
