// The opaque values of the CUDA backend: device memory with its shape.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/device_memory.h"
#include "backend/cuda/uploader.h"

namespace bise {

class CudaMatrix final : public Matrix {
 public:
  // A residual has `type` = float32 and room for it, and may hold bf16.
  CudaMatrix(std::int64_t max_rows, std::int64_t columns, cuda::Float type, bool is_residual = false);
  void resize(std::int64_t rows);
  // Of a residual: the type of what it is filled with next. Nothing happens to another matrix.
  void fill_as(cuda::Float type) {
    if (is_residual_) type_ = type;
  }
  cuda::Values values() const { return {buffer_.as<void>(), type_}; }

 private:
  cuda::Float type_;
  bool is_residual_;
  DeviceBuffer buffer_;
};

inline const CudaMatrix& cuda_matrix(const Matrix& matrix) {
  return dynamic_cast<const CudaMatrix&>(matrix);
}

class CudaLinearInput final : public LinearInput {
 public:
  CudaLinearInput(std::int64_t max_rows, std::int64_t columns);
  void resize(std::int64_t rows, InputType type);
  cuda::Encoded encoded() const;

 private:
  DeviceBuffer codes_, scales_;
};

// One stored matrix, or several joined along rows, in one of the device's formats.
class CudaLinearWeight final : public LinearWeight {
 public:
  // Uploads; throws Error for a scheme that the device cannot compute with.
  CudaLinearWeight(const std::vector<StoredLinear>& parts, Uploader& uploader);

  const cuda::Weight& weight() const { return weight_; }
  const float* bias() const { return bias_.as<float>(); }  // [rows] or null
  // Activation order: input column of each stored column, or null.
  const std::int32_t* permutation() const { return permutation_.as<std::int32_t>(); }
  // Whether the product is of codes with codes (int8 with int8, e4m3 with e4m3).
  bool multiplies_codes() const { return multiplies_codes_; }
  std::int64_t bytes() const;

 private:
  void make_panels();

  cuda::Weight weight_;
  bool multiplies_codes_ = false;
  DeviceBuffer codes_, scales_, zero_points_, levels_, bias_, permutation_;
  PooledBuffer panels_;
};

class CudaTensor final : public DeviceTensor {
 public:
  // BF16 stays; other float types become float32.
  CudaTensor(const Tensor& tensor, cuda::Float type, Uploader& uploader);
  cuda::Values values() const { return {buffer_.as<void>(), type_}; }
  std::int64_t elements() const { return elements_; }

 private:
  cuda::Float type_;
  std::int64_t elements_;
  DeviceBuffer buffer_;
};

class CudaRowStore final : public RowStore {
 public:
  CudaRowStore(std::int64_t rows, std::int64_t columns, cudaStream_t stream);
  void save(const Matrix& matrix, std::int64_t first) override;
  void load(std::int64_t first, std::int64_t count, Matrix& matrix) override;

 private:
  cuda::Values part(std::int64_t first, std::int64_t count) const;

  std::int64_t rows_, columns_;
  cudaStream_t stream_;
  DeviceBuffer values_;  // bf16 [rows, columns]
};

class CudaKvCache final : public KvCache {
 public:
  explicit CudaKvCache(const KvCacheShape& shape);
  std::int64_t bytes() const override { return static_cast<std::int64_t>(keys_.size() + values_.size()); }
  cuda::CacheView layer(std::int64_t slot) const;
  cuda::CacheView layer(const CacheLayer& layer) const;  // with the layer's scales
  // In every layer.
  void copy_block(std::int64_t from, std::int64_t to, cudaStream_t stream);
  // Of no other cache that this process has had.
  std::uint64_t id() const { return id_; }

 private:
  std::uint64_t id_;
  DeviceBuffer keys_, values_;  // [layers, num_blocks, block_size, num_kv_heads, head_dim]
};

}  // namespace bise
