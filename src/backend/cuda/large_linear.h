// Products of many rows by cuBLASLt. Algorithms are chosen by its heuristic once for each shape and kept.
#pragma once

#include <cublasLt.h>

#include <cstdint>
#include <map>
#include <memory>
#include <tuple>

#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/device_memory.h"

namespace bise {

class LargeLinear {
 public:
  enum class Operands {
    kBf16,
    kF32,   // without tensor cores
    kInt8,  // sums come out as int32
    kFp8,   // with a scale for each row of both operands, applied by the product
  };
  // out[r, n] = sum over k of in[r, k] weight[n, k]; both row-major with `stride` values a row.
  struct Product {
    Operands operands = Operands::kBf16;
    const void* in = nullptr;
    const void* weight = nullptr;
    const float *in_scales = nullptr, *weight_scales = nullptr;  // kFp8
    std::int64_t rows = 0, columns = 0, stride = 0;              // of `out`, and of a row of the operands
    cuda::Values out;                                            // kInt8: int32 whatever the type says
  };

  LargeLinear();
  ~LargeLinear();
  LargeLinear(const LargeLinear&) = delete;
  LargeLinear& operator=(const LargeLinear&) = delete;

  // Whether the alignment that its fast kernels need is there.
  static bool supports(std::int64_t columns) { return columns % 16 == 0; }
  void multiply(const Product& product, cudaStream_t stream);

 private:
  struct Plan;
  using Key = std::tuple<int, std::int64_t, std::int64_t, std::int64_t, int>;
  Plan& plan_for(const Product& product);

  cublasLtHandle_t handle_ = nullptr;
  DeviceBuffer workspace_;
  std::map<Key, std::unique_ptr<Plan>> plans_;
};

}  // namespace bise
