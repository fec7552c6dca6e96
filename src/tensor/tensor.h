// A dense row-major tensor in host memory: type, shape and a pointer that keeps its memory alive. Copies
// share the memory. The bytes of a mapped file are read-only; only an allocated tensor may be written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "tensor/dtype.h"

namespace bise {

using Shape = std::vector<std::int64_t>;

// "[2, 3]"
std::string shape_text(const Shape& shape);

// Product of the dimensions (1 for a scalar). Throws Error on a negative dimension or when the product does
// not fit into 2^62.
std::int64_t element_count(const Shape& shape);

class Tensor {
 public:
  Tensor() = default;

  // A view of `bytes`, which must hold exactly the elements; `owner` keeps them alive.
  Tensor(DType dtype, Shape shape, std::span<const std::byte> bytes, std::shared_ptr<const void> owner);

  // New zeroed memory, 64-byte aligned.
  static Tensor allocate(DType dtype, Shape shape);

  // A copy of `values`, for tests and small results.
  template <class T>
  static Tensor of(DType dtype, Shape shape, std::span<const T> values) {
    Tensor tensor = allocate(dtype, std::move(shape));
    tensor.assign(std::as_bytes(values));
    return tensor;
  }

  bool empty() const { return owner_ == nullptr; }
  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  std::int64_t dim(std::size_t axis) const { return shape_.at(axis); }
  std::int64_t elements() const;
  std::span<const std::byte> bytes() const { return bytes_; }

  // Elements as T, whose size must be the element's.
  template <class T>
  const T* data() const {
    require_size(sizeof(T));
    return reinterpret_cast<const T*>(bytes_.data());
  }
  // Only for tensors made by allocate().
  template <class T>
  T* mutable_data() {
    require_size(sizeof(T));
    require_writable();
    return const_cast<T*>(reinterpret_cast<const T*>(bytes_.data()));
  }

  // The same elements under another shape with the same count.
  Tensor reshaped(Shape shape) const;
  // Rows [begin, end) of the first axis, sharing the memory.
  Tensor rows(std::int64_t begin, std::int64_t end) const;

 private:
  void assign(std::span<const std::byte> bytes);
  void require_size(std::size_t size) const;
  void require_writable() const;

  DType dtype_ = DType::kF32;
  Shape shape_;
  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
  bool writable_ = false;
};

}  // namespace bise
