// GPTQ's products, by cuBLASLt, always with the algorithm that it proposes first: two runs agree to the
// bit. Belongs to the backend's thread.
#pragma once

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <map>
#include <memory>

#include "backend/cuda/cublas_plan.h"
#include "backend/cuda/device_memory.h"

namespace bise {

class GptqProducts {
 public:
  GptqProducts();
  ~GptqProducts();
  GptqProducts(const GptqProducts&) = delete;
  GptqProducts& operator=(const GptqProducts&) = delete;

  // hessian [width, width] += 2 X^T X, its upper triangle at least, for the bf16 rows X [rows, width]. On the
  // tensor cores, whose float32 sums are cut short, not rounded: they end after kSliceRows rows and are then
  // added up in float32.
  void add_squares(const void* in, std::int64_t rows, std::int64_t width, float* hessian,
                   cudaStream_t stream);
  // weight [rows, columns] -= errors [rows, depth] upper [depth, columns] in float32 without tensor cores;
  // `weight` and `upper` have `width` values a row.
  void subtract(const float* errors, std::int64_t rows, std::int64_t depth, const float* upper,
                std::int64_t columns, std::int64_t width, float* weight, cudaStream_t stream);
  // Replaces the lower triangular `matrix` [size, size], float64 column-major, by its inverse; what stood
  // above the diagonal becomes zero. From blocks of kInverseBlock on the diagonal upwards,
  // [A 0; B C]^-1 = [A^-1 0; -C^-1 B A^-1 C^-1]: on the tensor cores, a fifth of the time that cuSOLVER's
  // trtri takes.
  void invert_lower(double* matrix, std::int64_t size, cudaStream_t stream);

 private:
  struct Shape;
  using Key = std::array<std::int64_t, 12>;
  void run(const Shape& shape, double factor, const void* a, const void* b, double keep, void* d,
           cudaStream_t stream);
  // The blocks of `size` that follow each other from row `first` on, `batch` pairs of them, become inverses
  // of 2 * `size`; the second of a pair has `second` rows.
  void join_inverses(double* matrix, std::int64_t stride, std::int64_t first, std::int64_t size,
                     std::int64_t second, std::int64_t batch, cudaStream_t stream);
  std::unique_ptr<CublasPlan> make_plan(const Shape& shape) const;

  cublasLtHandle_t handle_ = nullptr;
  DeviceBuffer workspace_, joined_;
  std::map<Key, std::unique_ptr<CublasPlan>> plans_;
};

}  // namespace bise
