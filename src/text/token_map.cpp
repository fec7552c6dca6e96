#include "text/token_map.h"

#include <bit>
#include <cstring>

namespace bise {

std::uint64_t hash_text(std::string_view text) {
  constexpr std::uint64_t kFactor = 0x9E3779B97F4A7C15u;
  std::uint64_t hash = text.size() * kFactor;
  const auto mix = [&](std::uint64_t word) {
    hash = (hash ^ word) * kFactor;
    hash ^= hash >> 32;
  };
  while (text.size() >= 8) {
    std::uint64_t word;
    std::memcpy(&word, text.data(), 8);
    mix(word);
    text.remove_prefix(8);
  }
  std::uint64_t rest = 0;
  std::memcpy(&rest, text.data(), text.size());
  mix(rest);
  return hash;
}

TokenMap::TokenMap(const std::vector<std::string>& tokens) {
  std::size_t total = 0;
  for (const std::string& token : tokens) total += token.size();
  bytes_.reserve(total);
  starts_.reserve(tokens.size() + 1);
  slots_.resize(std::bit_ceil(2 * tokens.size() + 1));
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    bytes_ += tokens[id];
    starts_.push_back(bytes_.size());
    if (tokens[id].empty() || find(tokens[id]) >= 0) continue;
    const std::uint64_t hash = hash_text(tokens[id]);
    std::size_t at = hash & mask;
    while (slots_[at].id >= 0) at = (at + 1) & mask;
    slots_[at] = {static_cast<std::uint32_t>(hash >> 32), static_cast<std::int32_t>(id)};
  }
}

std::int32_t TokenMap::find(std::string_view token) const {
  if (slots_.empty()) return -1;
  const std::uint64_t hash = hash_text(token);
  const auto tag = static_cast<std::uint32_t>(hash >> 32);
  for (std::size_t at = hash;; ++at) {
    const Slot& slot = slots_[at & (slots_.size() - 1)];
    if (slot.id < 0) return -1;
    if (slot.tag == tag && text(slot.id) == token) return slot.id;
  }
}

MergeTable::MergeTable(const std::vector<BpeMerge>& merges) {
  slots_.assign(std::bit_ceil(2 * merges.size() + 1), Slot{});
  mask_ = slots_.size() - 1;
  for (const BpeMerge& merge : merges) {
    const std::uint64_t key = pair_key(merge.left, merge.right);
    std::uint64_t at = hash_pair(key);
    while (slots_[at & mask_].key != kEmpty && slots_[at & mask_].key != key) ++at;
    slots_[at & mask_] = {key, {merge.rank, merge.result}};
  }
}

}  // namespace bise
