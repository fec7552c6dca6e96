#include "backend/cuda/large_linear.h"

#include <cuda_runtime.h>

#include "base/error.h"

namespace bise {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;

cudaDataType_t operand_type(LargeLinear::Operands operands) {
  switch (operands) {
    case LargeLinear::Operands::kBf16: return CUDA_R_16BF;
    case LargeLinear::Operands::kF32: return CUDA_R_32F;
    case LargeLinear::Operands::kInt8: return CUDA_R_8I;
    case LargeLinear::Operands::kFp8: return CUDA_R_8F_E4M3;
  }
  return CUDA_R_32F;
}

template <class T>
void set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  cublas_check(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value),
               "cublasLtMatmulDescSetAttribute");
}

}  // namespace

// In cuBLAS's column-major words: D [columns, rows] = weight^T [columns, stride] in [stride, rows].
struct LargeLinear::Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};
  bool integers = false;

  ~Plan() {
    if (operation) cublasLtMatmulDescDestroy(operation);
    for (const auto layout : {a, b, d})
      if (layout) cublasLtMatrixLayoutDestroy(layout);
  }
};

LargeLinear::LargeLinear() : workspace_(kWorkspaceBytes) {
  cublas_check(cublasLtCreate(&handle_), "cublasLtCreate");
}

LargeLinear::~LargeLinear() {
  cublasLtDestroy(handle_);
}

LargeLinear::Plan& LargeLinear::plan_for(const Product& product) {
  const Key key{static_cast<int>(product.operands), product.rows, product.columns, product.stride,
                static_cast<int>(product.out.type)};
  auto& kept = plans_[key];
  if (kept) return *kept;
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
  set(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
  if (product.operands == Operands::kFp8) {
    const auto mode = CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F;
    set(plan->operation, CUBLASLT_MATMUL_DESC_A_SCALE_MODE, mode);
    set(plan->operation, CUBLASLT_MATMUL_DESC_B_SCALE_MODE, mode);
    set(plan->operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, product.weight_scales);
    set(plan->operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, product.in_scales);
  }
  const auto stride = static_cast<std::uint64_t>(product.stride);
  const auto columns = static_cast<std::uint64_t>(product.columns),
             rows = static_cast<std::uint64_t>(product.rows);
  cublas_check(cublasLtMatrixLayoutCreate(&plan->a, type, stride, columns, product.stride), "layout of A");
  cublas_check(cublasLtMatrixLayoutCreate(&plan->b, type, stride, rows, product.stride), "layout of B");
  cublas_check(cublasLtMatrixLayoutCreate(&plan->d, out, columns, rows, product.columns), "layout of D");

  cublasLtMatmulPreference_t preference = nullptr;
  cublas_check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  const std::size_t workspace = kWorkspaceBytes;
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                       sizeof workspace);
  cublasLtMatmulHeuristicResult_t result = {};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle_, plan->operation, plan->a, plan->b, plan->d, plan->d, preference, 1, &result, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  cublas_check(status, "cublasLtMatmulAlgoGetHeuristic");
  if (found == 0)
    throw Error("cuBLASLt has no algorithm for a product")
        .got(std::to_string(product.rows) + " x " + std::to_string(product.columns) + " x " +
             std::to_string(product.stride));
  plan->algorithm = result.algo;
  kept = std::move(plan);
  return *kept;
}

void LargeLinear::multiply(const Product& product, cudaStream_t stream) {
  Plan& plan = plan_for(product);
  if (product.operands == Operands::kFp8) {
    set(plan.operation, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, product.weight_scales);
    set(plan.operation, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, product.in_scales);
  }
  const float one = 1, zero = 0;
  const std::int32_t integer_one = 1, integer_zero = 0;
  const void* alpha = plan.integers ? static_cast<const void*>(&integer_one) : &one;
  const void* beta = plan.integers ? static_cast<const void*>(&integer_zero) : &zero;
  cublas_check(cublasLtMatmul(handle_, plan.operation, alpha, product.weight, plan.a, product.in, plan.b,
                              beta, product.out.data, plan.d, product.out.data, plan.d, &plan.algorithm,
                              workspace_.as<void>(), kWorkspaceBytes, stream),
               "cublasLtMatmul");
  cudaGetLastError();  // it may leave an error of its own trials behind
}

}  // namespace bise
