#include "backend/cuda/cuda_matrix.h"

#include "base/check.h"
#include "base/error.h"
#include "tensor/float_types.h"

namespace bise {
namespace {

std::size_t float_bytes(cuda::Float type) {
  return type == cuda::Float::kBf16 ? 2 : 4;
}

}  // namespace

CudaMatrix::CudaMatrix(std::int64_t max_rows, std::int64_t columns, cuda::Float type)
    : Matrix(max_rows, columns),
      type_(type),
      buffer_(static_cast<std::size_t>(max_rows * columns) * float_bytes(type)) {}

void CudaMatrix::resize(std::int64_t rows) {
  check(rows >= 0 && rows <= max_rows_, "the rows fit the matrix");
  rows_ = rows;
}

CudaLinearInput::CudaLinearInput(std::int64_t max_rows, std::int64_t columns)
    : LinearInput(max_rows, columns),
      codes_(static_cast<std::size_t>(max_rows * cuda::padded(columns)) * 2),
      scales_(static_cast<std::size_t>(max_rows) * sizeof(float)) {}

void CudaLinearInput::resize(std::int64_t rows, InputType type) {
  check(rows >= 0 && rows <= max_rows_, "the rows fit the linear input");
  rows_ = rows;
  type_ = type;
}

cuda::Encoded CudaLinearInput::encoded() const {
  return {codes_.as<void>(), type_ == InputType::kNone ? nullptr : scales_.as<float>(),
          static_cast<cuda::Encoding>(type_), columns_, cuda::padded(columns_)};
}

CudaTensor::CudaTensor(const Tensor& tensor, cuda::Float type)
    : type_(type),
      elements_(tensor.elements()),
      buffer_(static_cast<std::size_t>(elements_) * float_bytes(type)) {
  if (type == cuda::Float::kBf16) {
    check(tensor.dtype() == DType::kBF16, "a bf16 tensor");
    buffer_.upload(tensor.bytes().data(), tensor.bytes().size());
    return;
  }
  std::vector<float> values(static_cast<std::size_t>(elements_));
  to_float(tensor, values);
  buffer_.upload(values.data(), values.size() * sizeof(float));
}

CudaKvCache::CudaKvCache(const KvCacheShape& shape) : KvCache(shape) {
  if (shape.dtype != DType::kBF16 && shape.dtype != DType::kF32)
    throw Error("the CUDA backend has no KV cache of this type")
        .expected("BF16 or F32")
        .got(std::string(dtype_name(shape.dtype)));
  const std::size_t bytes = static_cast<std::size_t>(shape.layers * shape.num_blocks * shape.block_size *
                                                     shape.num_kv_heads * shape.head_dim) *
                            (shape.dtype == DType::kBF16 ? 2 : 4);
  keys_.grow(bytes);
  values_.grow(bytes);
}

cuda::CacheView CudaKvCache::layer(std::int64_t slot) const {
  check(slot >= 0 && slot < shape_.layers, "the layer is in the cache");
  const std::size_t offset =
      keys_.size() / static_cast<std::size_t>(shape_.layers) * static_cast<std::size_t>(slot);
  return {keys_.as<char>() + offset,
          values_.as<char>() + offset,
          shape_.dtype == DType::kBF16 ? cuda::Float::kBf16 : cuda::Float::kF32,
          shape_.block_size,
          shape_.num_kv_heads,
          shape_.head_dim};
}

}  // namespace bise
