#include "backend/cuda/cuda_matrix.h"

#include <atomic>

#include "base/check.h"
#include "base/error.h"
#include "tensor/float_types.h"

namespace bise {
namespace {

std::size_t float_bytes(cuda::Float type) {
  return type == cuda::Float::kBf16 ? 2 : 4;
}

std::uint64_t next_cache_id() {
  static std::atomic<std::uint64_t> next = 0;
  return ++next;
}

}  // namespace

CudaMatrix::CudaMatrix(std::int64_t max_rows, std::int64_t columns, cuda::Float type, bool is_residual)
    : Matrix(max_rows, columns),
      type_(type),
      is_residual_(is_residual),
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

CudaTensor::CudaTensor(const Tensor& tensor, cuda::Float type, Uploader& uploader)
    : type_(type),
      elements_(tensor.elements()),
      buffer_(static_cast<std::size_t>(elements_) * float_bytes(type)) {
  if (type == cuda::Float::kBf16) {
    check(tensor.dtype() == DType::kBF16, "a bf16 tensor");
    uploader.upload(buffer_.as<void>(), tensor.bytes());
    return;
  }
  std::vector<float> values(static_cast<std::size_t>(elements_));
  to_float(tensor, values);
  buffer_.upload(values.data(), values.size() * sizeof(float));
}

CudaRowStore::CudaRowStore(std::int64_t rows, std::int64_t columns, cudaStream_t stream)
    : rows_(rows),
      columns_(columns),
      stream_(stream),
      values_(static_cast<std::size_t>(rows * columns) * 2) {}

cuda::Values CudaRowStore::part(std::int64_t first, std::int64_t count) const {
  check(first >= 0 && count >= 0 && first + count <= rows_, "the rows are in the store");
  return {values_.as<char>() + first * columns_ * 2, cuda::Float::kBf16};
}

void CudaRowStore::save(const Matrix& matrix, std::int64_t first) {
  const cuda::Values values = cuda_matrix(matrix).values(), stored = part(first, matrix.rows());
  check(matrix.columns() == columns_, "the store has the matrix's columns");
  const std::int64_t count = matrix.rows() * columns_;
  if (values.type == cuda::Float::kF32)
    cuda::from_float(static_cast<const float*>(values.data), count, stored, stream_);
  else
    cuda_check(cudaMemcpyAsync(stored.data, values.data, static_cast<std::size_t>(count) * 2,
                               cudaMemcpyDeviceToDevice, stream_),
               "saving rows");
  cuda_check(cudaGetLastError(), "saving rows");
}

void CudaRowStore::load(std::int64_t first, std::int64_t count, Matrix& matrix) {
  auto& target = dynamic_cast<CudaMatrix&>(matrix);
  target.fill_as(cuda::Float::kF32);
  check(matrix.columns() == columns_ && target.values().type == cuda::Float::kF32,
        "the store has the matrix's columns");
  target.resize(count);
  cuda::to_float(part(first, count), count * columns_, static_cast<float*>(target.values().data), stream_);
  cuda_check(cudaGetLastError(), "loading rows");
}

CudaKvCache::CudaKvCache(const KvCacheShape& shape) : KvCache(shape), id_(next_cache_id()) {
  if (shape.dtype != DType::kBF16 && shape.dtype != DType::kF32 && shape.dtype != DType::kF8E4M3)
    throw Error("the CUDA backend has no KV cache of this type")
        .expected("BF16, F32 or F8_E4M3")
        .got(std::string(dtype_name(shape.dtype)));
  const std::size_t bytes = static_cast<std::size_t>(shape.layers * shape.num_blocks * shape.block_size *
                                                     shape.num_kv_heads * shape.head_dim) *
                            dtype_size(shape.dtype);
  keys_.grow(bytes);
  values_.grow(bytes);
}

void CudaKvCache::copy_block(std::int64_t from, std::int64_t to, cudaStream_t stream) {
  check(from >= 0 && from < shape_.num_blocks && to >= 0 && to < shape_.num_blocks,
        "the blocks are in the cache");
  const std::size_t layer = keys_.size() / static_cast<std::size_t>(shape_.layers);
  const std::size_t block = layer / static_cast<std::size_t>(shape_.num_blocks);
  for (const DeviceBuffer* buffer : {&keys_, &values_})
    cuda_check(cudaMemcpy2DAsync(buffer->as<char>() + static_cast<std::size_t>(to) * block, layer,
                                 buffer->as<char>() + static_cast<std::size_t>(from) * block, layer, block,
                                 static_cast<std::size_t>(shape_.layers), cudaMemcpyDeviceToDevice, stream),
               "copying a block");
}

cuda::CacheView CudaKvCache::layer(const CacheLayer& layer) const {
  cuda::CacheView view = this->layer(layer.slot);
  view.key_scale = view.type == cuda::Float::kE4M3 ? layer.key_scale : 1;
  view.value_scale = view.type == cuda::Float::kE4M3 ? layer.value_scale : 1;
  return view;
}

cuda::CacheView CudaKvCache::layer(std::int64_t slot) const {
  check(slot >= 0 && slot < shape_.layers, "the layer is in the cache");
  const std::size_t offset =
      keys_.size() / static_cast<std::size_t>(shape_.layers) * static_cast<std::size_t>(slot);
  return {keys_.as<char>() + offset,
          values_.as<char>() + offset,
          shape_.dtype == DType::kBF16     ? cuda::Float::kBf16
          : shape_.dtype == DType::kF8E4M3 ? cuda::Float::kE4M3
                                           : cuda::Float::kF32,
          shape_.num_blocks,
          shape_.block_size,
          shape_.num_kv_heads,
          shape_.head_dim};
}

}  // namespace bise
