// A string that remembers, for each byte, where it came from: the template (trusted) or the data given to it
// (untrusted). Every string operation of the engine is made of append() and part(), so that no operation can
// forget. Valid UTF-8 always; positions are byte offsets at character boundaries.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "text/segment.h"

namespace bise::jinja {

class Text {
 public:
  Text() = default;
  Text(std::string_view bytes, bool trusted) { append(bytes, trusted); }

  const std::string& bytes() const { return bytes_; }
  std::size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }

  void append(std::string_view bytes, bool trusted);
  void append(const Text& other) { append_part(other, 0, other.size()); }
  // Appends bytes [begin, end) of `other`, with their origin. `other` may be this text.
  void append_part(const Text& other, std::size_t begin, std::size_t end);
  // Bytes [begin, end).
  Text part(std::size_t begin, std::size_t end) const;
  // Whether the byte at `position` is trusted.
  bool trusted_at(std::size_t position) const;
  // Whether every byte is trusted; true for the empty text.
  bool trusted() const { return runs_.empty() || (runs_.size() == 1 && runs_[0].trusted); }

  std::vector<TextSegment> segments() const;

 private:
  // Neighbouring runs differ in `trusted` and none is empty; the last one ends at size().
  struct Run {
    std::size_t end;
    bool trusted;
  };
  std::vector<Run>::const_iterator run_at(std::size_t position) const;

  std::string bytes_;
  std::vector<Run> runs_;
};

}  // namespace bise::jinja
