// The two hash tables that encoding lives in: strings to ids, and pairs of ids to what they merge into.
// Open addressing with linear probing, at most half full: one cache line per lookup as a rule.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

// Mixes `text` eight bytes at a time.
std::uint64_t hash_text(std::string_view text);

// Token strings by id and ids by token string. Ids without a string, or with an empty one, are not found.
class TokenMap {
 public:
  TokenMap() = default;
  // Of equal strings the first id wins.
  explicit TokenMap(const std::vector<std::string>& tokens);

  // -1 when `token` is no token.
  std::int32_t find(std::string_view token) const;
  std::string_view text(std::int32_t id) const {
    return std::string_view(bytes_).substr(starts_[id], starts_[id + 1] - starts_[id]);
  }
  std::int32_t size() const { return static_cast<std::int32_t>(starts_.size()) - 1; }

 private:
  struct Slot {
    std::uint32_t tag = 0;  // upper half of the hash
    std::int32_t id = -1;
  };
  std::string bytes_;
  std::vector<std::uint64_t> starts_ = {0};
  std::vector<Slot> slots_;
};

// `left` followed by `right` becomes `result`; the lowest rank merges first.
struct BpeMerge {
  std::int32_t left, right, result;
  std::uint32_t rank;
};

class MergeTable {
 public:
  static constexpr std::uint32_t kNone = 0xFFFFFFFF;
  struct Found {
    std::uint32_t rank = kNone;  // kNone: the pair does not merge
    std::int32_t result = -1;
  };

  MergeTable() = default;
  // Of equal pairs the last one wins.
  explicit MergeTable(const std::vector<BpeMerge>& merges);

  Found find(std::int32_t left, std::int32_t right) const {
    const std::uint64_t key = pair_key(left, right);
    for (std::uint64_t at = hash_pair(key);; ++at) {
      const Slot& slot = slots_[at & mask_];
      if (slot.key == key) return slot.found;
      if (slot.key == kEmpty) return {};
    }
  }

 private:
  static constexpr std::uint64_t kEmpty = ~std::uint64_t{0};
  struct Slot {
    std::uint64_t key = kEmpty;
    Found found;
  };
  static std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
    return std::uint64_t(std::uint32_t(left)) << 32 | std::uint32_t(right);
  }
  static std::uint64_t hash_pair(std::uint64_t key) {
    key *= 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio
    return key ^ (key >> 29);
  }
  std::vector<Slot> slots_ = std::vector<Slot>(1);
  std::uint64_t mask_ = 0;
};

}  // namespace bise
