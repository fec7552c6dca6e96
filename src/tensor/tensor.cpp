#include "tensor/tensor.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <new>

#include "base/check.h"
#include "base/error.h"

namespace bise {

std::string shape_text(const Shape& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

std::int64_t element_count(const Shape& shape) {
  constexpr std::int64_t kLimit = std::int64_t{1} << 62;
  std::int64_t count = 1;
  for (const std::int64_t size : shape) {
    if (size < 0) throw Error("a shape has a negative dimension").got(shape_text(shape));
    if (size != 0 && count > kLimit / size) throw Error("a shape is too large").got(shape_text(shape));
    count *= size;
  }
  return count;
}

Tensor::Tensor(DType dtype, Shape shape, std::span<const std::byte> bytes, std::shared_ptr<const void> owner)
    : dtype_(dtype), shape_(std::move(shape)), bytes_(bytes), owner_(std::move(owner)) {
  check(bytes_.size() == static_cast<std::size_t>(elements()) * dtype_size(dtype_),
        "a tensor's bytes fit its shape");
  check(owner_ != nullptr, "a tensor has an owner");
}

Tensor Tensor::allocate(DType dtype, Shape shape) {
  constexpr std::align_val_t kAlignment{64};
  const std::size_t size = static_cast<std::size_t>(element_count(shape)) * dtype_size(dtype);
  auto* memory = static_cast<std::byte*>(::operator new(std::max<std::size_t>(size, 1), kAlignment));
  std::memset(memory, 0, size);
  const std::shared_ptr<const void> owner(
      memory, [](const void* pointer) { ::operator delete(const_cast<void*>(pointer), kAlignment); });
  Tensor tensor(dtype, std::move(shape), {memory, size}, owner);
  tensor.writable_ = true;
  return tensor;
}

std::int64_t Tensor::elements() const {
  return element_count(shape_);
}

Tensor Tensor::reshaped(Shape shape) const {
  check(element_count(shape) == elements(), "reshaping keeps the number of elements");
  Tensor result = *this;
  result.shape_ = std::move(shape);
  return result;
}

Tensor Tensor::rows(std::int64_t begin, std::int64_t end) const {
  check(!shape_.empty() && 0 <= begin && begin <= end && end <= shape_[0], "rows stay inside the tensor");
  const std::size_t row = shape_[0] == 0 ? 0 : bytes_.size() / static_cast<std::size_t>(shape_[0]);
  Tensor result = *this;
  result.shape_[0] = end - begin;
  result.bytes_ =
      bytes_.subspan(static_cast<std::size_t>(begin) * row, static_cast<std::size_t>(end - begin) * row);
  return result;
}

void Tensor::assign(std::span<const std::byte> bytes) {
  check(bytes.size() == bytes_.size(), "a tensor's values fit its shape");
  if (!bytes.empty()) std::memcpy(const_cast<std::byte*>(bytes_.data()), bytes.data(), bytes.size());
}

void Tensor::require_size(std::size_t size) const {
  check(size == dtype_size(dtype_) || size == 1, "the element type has the tensor's size");
}

void Tensor::require_writable() const {
  check(writable_, "only an allocated tensor is written");
}

}  // namespace bise
