#include "engine/token_counts.h"

namespace bise {

// The slot that holds `token`, or the free one where it would go.
std::size_t TokenCounts::find(std::int32_t token) const {
  const std::size_t last = slots_.size() - 1;
  std::size_t slot = (static_cast<std::uint32_t>(token) * 0x9e3779b9u >> 8) & last;
  while (slots_[slot] != 0 && entries_[static_cast<std::size_t>(slots_[slot] - 1)].token != token)
    slot = (slot + 1) & last;
  return slot;
}

void TokenCounts::grow() {
  slots_.assign(slots_.empty() ? 64 : slots_.size() * 2, 0);
  for (std::size_t i = 0; i < entries_.size(); ++i)
    slots_[find(entries_[i].token)] = static_cast<std::int32_t>(i + 1);
}

TokenCounts::Entry& TokenCounts::entry(std::int32_t token) {
  if (2 * (entries_.size() + 1) > slots_.size()) grow();
  const std::size_t slot = find(token);
  if (slots_[slot] == 0) {
    entries_.push_back({token, 0});
    slots_[slot] = static_cast<std::int32_t>(entries_.size());
  }
  return entries_[static_cast<std::size_t>(slots_[slot] - 1)];
}

}  // namespace bise
