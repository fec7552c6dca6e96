// Products of many rows by cuBLASLt. Of the algorithms that its heuristic proposes for a shape the fastest is
// kept, timed on the first operands that come, for numbers of rows rounded up (rows_class): which it is may
// differ from run to run, unless take_first_algorithms() was called.
#pragma once

#include <cublasLt.h>
#include <cuda_runtime_api.h>

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
    kF32,       // without tensor cores
    kInt8,      // sums come out as int32
    kFp8,       // with a scale for each row of both operands, applied by the product
    kFp8Codes,  // without scales: faster for few rows
  };
  // out[r, n] = sum over k of in[r, k] weight[n, k]; both row-major with `stride` values a row.
  struct Product {
    Operands operands = Operands::kBf16;
    const void* in = nullptr;
    const void* weight = nullptr;
    const float *in_scales = nullptr, *weight_scales = nullptr;  // kFp8
    std::int64_t rows = 0, columns = 0, stride = 0;              // of `out`, and of a row of the operands
    cuda::Values out;                                            // kInt8: int32 whatever the type says
    bool adds = false;                                           // to what stands in `out`, rounded once
  };

  LargeLinear();
  ~LargeLinear();
  LargeLinear(const LargeLinear&) = delete;
  LargeLinear& operator=(const LargeLinear&) = delete;

  // Whether the alignment that its fast kernels need is there.
  static bool supports(std::int64_t columns) { return columns % 16 == 0; }
  void multiply(const Product& product, cudaStream_t stream);
  // From now on the algorithm that the heuristic proposes first, so that two runs agree.
  void take_first_algorithms();

 private:
  struct Plan;
  using Key = std::tuple<int, std::int64_t, std::int64_t, std::int64_t, int, bool>;
  Plan& plan_for(const Product& product, cudaStream_t stream);
  std::unique_ptr<Plan> make_plan(const Product& product) const;
  cublasLtMatmulAlgo_t choose(const Plan& plan, const Product& product, cudaStream_t stream);
  void run(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, const Product& product,
           cudaStream_t stream);
  // Milliseconds with nothing of the operands in the second-level cache; infinite where it fails.
  float time(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, const Product& product,
             cudaStream_t stream);

  cublasLtHandle_t handle_ = nullptr;
  bool takes_first_ = false;
  DeviceBuffer workspace_, swept_;  // swept_: larger than the second-level cache
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  std::map<Key, std::unique_ptr<Plan>> plans_;
  std::map<Key, cublasLtMatmulAlgo_t> algorithms_;  // by the class of the rows
};

}  // namespace bise
