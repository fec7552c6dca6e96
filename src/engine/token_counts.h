// Which tokens a sequence has, and how often its output has each: what penalties look at. Memory grows with
// the distinct tokens, not with the vocabulary.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace bise {

class TokenCounts {
 public:
  using Entry = TokenCount;

  void add_prompt(std::int32_t token) { entry(token); }
  void add_output(std::int32_t token) { ++entry(token).output_count; }
  std::span<const Entry> entries() const { return entries_; }

 private:
  Entry& entry(std::int32_t token);
  std::size_t find(std::int32_t token) const;
  void grow();

  std::vector<Entry> entries_;
  // Open addressing: index into entries_ + 1, or 0. At most half full; the size is a power of 2.
  std::vector<std::int32_t> slots_;
};

}  // namespace bise
