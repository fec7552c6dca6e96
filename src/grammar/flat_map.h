// A hash map from 64-bit keys to 64-bit values for the inner loops: open addressing, nothing is ever erased.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bise {

class FlatMap {
 public:
  static constexpr std::uint64_t kAbsent = ~std::uint64_t{0};  // no key and no value

  FlatMap() : slots_(64, {kAbsent, kAbsent}) {}

  std::uint64_t find(std::uint64_t key) const {
    for (std::size_t i = place(key);; i = (i + 1) & (slots_.size() - 1)) {
      if (slots_[i].key == key) return slots_[i].value;
      if (slots_[i].key == kAbsent) return kAbsent;
    }
  }

  // `key` must be new.
  void insert(std::uint64_t key, std::uint64_t value) {
    if (2 * ++size_ > slots_.size()) grow();
    put(key, value);
  }

  std::size_t size() const { return size_; }

 private:
  struct Slot {
    std::uint64_t key, value;
  };

  std::size_t place(std::uint64_t key) const {
    key ^= key >> 32;
    key *= 0x9E3779B97F4A7C15;
    return (key ^ key >> 29) & (slots_.size() - 1);
  }

  void put(std::uint64_t key, std::uint64_t value) {
    std::size_t i = place(key);
    while (slots_[i].key != kAbsent) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = {key, value};
  }

  void grow() {
    std::vector<Slot> old(2 * slots_.size(), {kAbsent, kAbsent});
    old.swap(slots_);
    for (const Slot& slot : old)
      if (slot.key != kAbsent) put(slot.key, slot.value);
  }

  std::vector<Slot> slots_;
  std::size_t size_ = 0;
};

}  // namespace bise
