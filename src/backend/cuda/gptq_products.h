// GPTQ's two products, by cuBLASLt, always with the algorithm that it proposes first: two runs agree to the
// bit. Belongs to the backend's thread.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

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

 private:
  struct Plan;
  struct Shape;
  using Key = std::tuple<bool, std::int64_t, std::int64_t, std::int64_t, std::int64_t>;
  const Plan& plan_for(const Shape& shape);
  std::unique_ptr<Plan> make_plan(const Shape& shape) const;

  cublasLtHandle_t handle_ = nullptr;
  DeviceBuffer workspace_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace bise
