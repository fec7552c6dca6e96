#include "backend/cuda/large_linear.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <limits>

#include "backend/cuda/cublas_plan.h"
#include "base/error.h"

namespace bise {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20, kSweptBytes = std::size_t{128} << 20;
constexpr int kMostAlgorithms = 12, kTimings = 3;

// Rows that share an algorithm.
std::int64_t rows_class(std::int64_t rows) {
  const std::int64_t step = rows <= 512 ? 64 : rows <= 2048 ? 512 : 2048;
  return (rows + step - 1) / step * step;
}

cudaDataType_t operand_type(LargeLinear::Operands operands) {
  switch (operands) {
    case LargeLinear::Operands::kBf16: return CUDA_R_16BF;
    case LargeLinear::Operands::kF32: return CUDA_R_32F;
    case LargeLinear::Operands::kInt8: return CUDA_R_8I;
    case LargeLinear::Operands::kFp8:
    case LargeLinear::Operands::kFp8Codes: return CUDA_R_8F_E4M3;
  }
  return CUDA_R_32F;
}

}  // namespace

// In cuBLAS's column-major words: D [columns, rows] = weight^T [columns, stride] in [stride, rows].
struct LargeLinear::Plan : CublasPlan {
  bool integers = false;
};

LargeLinear::LargeLinear() : workspace_(kWorkspaceBytes) {
  cublas_check(cublasLtCreate(&handle_), "cublasLtCreate");
  cuda_check(cudaEventCreate(&begin_), "cudaEventCreate");
  cuda_check(cudaEventCreate(&end_), "cudaEventCreate");
}

LargeLinear::~LargeLinear() {
  cudaEventDestroy(begin_);
  cudaEventDestroy(end_);
  cublasLtDestroy(handle_);
}

void LargeLinear::take_first_algorithms() {
  takes_first_ = true;
  plans_.clear();
  algorithms_.clear();
}

LargeLinear::Plan& LargeLinear::plan_for(const Product& product, cudaStream_t stream) {
  const auto key_for = [&](std::int64_t rows) {
    return Key{static_cast<int>(product.operands), rows,        product.columns, product.stride,
               static_cast<int>(product.out.type), product.adds};
  };
  auto& kept = plans_[key_for(product.rows)];
  if (kept) return *kept;
  auto plan = make_plan(product);
  const auto known = algorithms_.find(key_for(rows_class(product.rows)));
  cublasLtMatmulHeuristicResult_t checked = {};
  if (known != algorithms_.end() &&
      cublasLtMatmulAlgoCheck(handle_, plan->operation, plan->a, plan->b, plan->d, plan->d, &known->second,
                              &checked) == CUBLAS_STATUS_SUCCESS &&
      checked.workspaceSize <= kWorkspaceBytes) {
    plan->algorithm = known->second;
  } else {
    plan->algorithm = choose(*plan, product, stream);
    algorithms_.emplace(key_for(rows_class(product.rows)), plan->algorithm);
  }
  kept = std::move(plan);
  return *kept;
}

std::unique_ptr<LargeLinear::Plan> LargeLinear::make_plan(const Product& product) const {
  auto plan = std::make_unique<Plan>();
  plan->integers = product.operands == Operands::kInt8;
  const cudaDataType_t type = operand_type(product.operands);
  const cudaDataType_t out = plan->integers                           ? CUDA_R_32I
                             : product.out.type == cuda::Float::kBf16 ? CUDA_R_16BF
                                                                      : CUDA_R_32F;
  cublas_check(
      cublasLtMatmulDescCreate(&plan->operation, plan->integers ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F,
                               plan->integers ? CUDA_R_32I : CUDA_R_32F),
      "cublasLtMatmulDescCreate");
  plan->set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  if (product.operands == Operands::kFp8) {
    const auto mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    // The tensor cores' own sums, which keep some 14 bits: float8 codes have 4. 11 % of a prompt's time, as
    // what draws less power runs at a higher clock (H200).
    plan->set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, std::int8_t{1});
    plan->set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode);
    plan->set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode);
    plan->set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, product.weight_scales);
    plan->set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, product.in_scales);
  }
  const auto stride = static_cast<std::uint64_t>(product.stride);
  const auto columns = static_cast<std::uint64_t>(product.columns),
             rows = static_cast<std::uint64_t>(product.rows);
  cublas_check(cublasLtMatrixLayoutCreate(&plan->a, type, stride, columns, product.stride), "layout of A");
  cublas_check(cublasLtMatrixLayoutCreate(&plan->b, type, stride, rows, product.stride), "layout of B");
  cublas_check(cublasLtMatrixLayoutCreate(&plan->d, out, columns, rows, product.columns), "layout of D");

  return plan;
}

cublasLtMatmulAlgo_t LargeLinear::choose(const Plan& plan, const Product& product, cudaStream_t stream) {
  cublasLtMatmulPreference_t preference = nullptr;
  cublas_check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  const std::size_t workspace = kWorkspaceBytes;
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                       sizeof workspace);
  std::array<cublasLtMatmulHeuristicResult_t, kMostAlgorithms> proposed = {};
  int found = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle_, plan.operation, plan.a, plan.b, plan.d, plan.d, preference,
                                     kMostAlgorithms, proposed.data(), &found);
  cublasLtMatmulPreferenceDestroy(preference);
  cudaGetLastError();  // it may leave an error of its own trials behind
  cublas_check(status, "cublasLtMatmulAlgoGetHeuristic");
  if (found == 0)
    throw Error("cuBLASLt has no algorithm for a product")
        .got(std::to_string(product.rows) + " x " + std::to_string(product.columns) + " x " +
             std::to_string(product.stride));
  if (takes_first_) return proposed[0].algo;
  std::array<float, kMostAlgorithms> milliseconds = {};
  for (int i = 0; i < found; ++i)
    milliseconds[static_cast<std::size_t>(i)] =
        time(plan, proposed[static_cast<std::size_t>(i)].algo, product, stream);
  const auto best = std::min_element(milliseconds.begin(), milliseconds.begin() + found);
  return proposed[static_cast<std::size_t>(best - milliseconds.begin())].algo;
}

float LargeLinear::time(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, const Product& product,
                        cudaStream_t stream) {
  swept_.grow(kSweptBytes);
  Product timed = product;
  if (product.adds) {  // elsewhere: once is enough
    swept_.grow(static_cast<std::size_t>(product.rows * product.columns) * sizeof(float));
    timed.out.data = swept_.as<void>();
  }
  float best = std::numeric_limits<float>::infinity();
  try {
    for (int i = 0; i < kTimings; ++i) {
      cuda_check(cudaMemsetAsync(swept_.as<void>(), i, swept_.size(), stream), "cudaMemset");
      cuda_check(cudaEventRecord(begin_, stream), "cudaEventRecord");
      run(plan, algorithm, timed, stream);
      cuda_check(cudaEventRecord(end_, stream), "cudaEventRecord");
      cuda_check(cudaEventSynchronize(end_), "waiting for a product");
      float passed = 0;
      cuda_check(cudaEventElapsedTime(&passed, begin_, end_), "cudaEventElapsedTime");
      best = std::min(best, passed);
    }
  } catch (const Error&) {
    return std::numeric_limits<float>::infinity();
  }
  return best;
}

void LargeLinear::run(const Plan& plan, const cublasLtMatmulAlgo_t& algorithm, const Product& product,
                      cudaStream_t stream) {
  if (product.operands == Operands::kFp8) {
    plan.set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, product.weight_scales);
    plan.set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, product.in_scales);
  }
  const float one = 1, added = product.adds ? 1.f : 0.f;
  const std::int32_t integer_one = 1, integer_zero = 0;
  const void* alpha = plan.integers ? static_cast<const void*>(&integer_one) : &one;
  const void* beta = plan.integers ? static_cast<const void*>(&integer_zero) : &added;
  const cublasStatus_t status = cublasLtMatmul(
      handle_, plan.operation, alpha, product.weight, plan.a, product.in, plan.b, beta, product.out.data,
      plan.d, product.out.data, plan.d, &algorithm, workspace_.as<void>(), kWorkspaceBytes, stream);
  cudaGetLastError();  // it may leave an error of its own trials behind
  cublas_check(status, "cublasLtMatmul");
}

void LargeLinear::multiply(const Product& product, cudaStream_t stream) {
  const Plan& plan = plan_for(product, stream);
  run(plan, plan.algorithm, product, stream);
}

}  // namespace bise
