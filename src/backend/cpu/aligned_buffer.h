// An array of plain values for kernels: zeroed by the kernel's fresh pages, 64-byte aligned, on huge pages,
// and readable for one cache line past its end. Untouched pages cost nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace bise {

// `bytes` zeroed; throws std::bad_alloc.
std::shared_ptr<std::byte> allocate_aligned(std::size_t bytes);

template <class T>
class AlignedBuffer {
  static_assert(std::is_trivial_v<T>);

 public:
  AlignedBuffer() = default;
  explicit AlignedBuffer(std::int64_t size)
      : size_(size), memory_(allocate_aligned(static_cast<std::size_t>(size) * sizeof(T) + 64)) {}

  std::int64_t size() const { return size_; }
  T* data() { return reinterpret_cast<T*>(memory_.get()); }
  const T* data() const { return reinterpret_cast<const T*>(memory_.get()); }
  T& operator[](std::int64_t i) { return data()[i]; }
  const T& operator[](std::int64_t i) const { return data()[i]; }

 private:
  std::int64_t size_ = 0;
  std::shared_ptr<std::byte> memory_;
};

}  // namespace bise
