#include "backend/cuda/gptq_products.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "base/error.h"

namespace bise {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;
// Of a sum on the tensor cores: 256 additions, each cut to float32, are off by some 2^-17 at most.
constexpr std::int64_t kSliceRows = 4096;
// The triangle is computed in bands of so many rows, each from its diagonal on.
constexpr std::int64_t kBandRows = 2048;

template <class T>
void set(cublasLtMatmulDesc_t desc, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  cublas_check(cublasLtMatmulDescSetAttribute(desc, attribute, &value, sizeof value),
               "cublasLtMatmulDescSetAttribute");
}

}  // namespace

// In cuBLAS's column-major words: D [m, n] += alpha A B, A [m, k] as it is; B [k, n] as it is, or of bf16
// [n, k] transposed.
struct GptqProducts::Shape {
  bool bf16 = false;
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t width = 0;  // of the rows of A and D; those of B have k, or of bf16 `width`
};

struct GptqProducts::Plan {
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, d = nullptr;
  cublasLtMatmulAlgo_t algorithm = {};

  ~Plan() {
    if (operation) cublasLtMatmulDescDestroy(operation);
    for (const auto layout : {a, b, d})
      if (layout) cublasLtMatrixLayoutDestroy(layout);
  }
};

GptqProducts::GptqProducts() : workspace_(kWorkspaceBytes) {
  cublas_check(cublasLtCreate(&handle_), "cublasLtCreate");
}

GptqProducts::~GptqProducts() {
  cublasLtDestroy(handle_);
}

std::unique_ptr<GptqProducts::Plan> GptqProducts::make_plan(const Shape& shape) const {
  auto plan = std::make_unique<Plan>();
  const cudaDataType_t type = shape.bf16 ? CUDA_R_16BF : CUDA_R_32F;
  cublas_check(cublasLtMatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F),
               "cublasLtMatmulDescCreate");
  if (shape.bf16) set(plan->operation, CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_T);
  const auto m = static_cast<std::uint64_t>(shape.m), n = static_cast<std::uint64_t>(shape.n),
             k = static_cast<std::uint64_t>(shape.k);
  cublas_check(cublasLtMatrixLayoutCreate(&plan->a, type, m, k, shape.width), "layout of A");
  cublas_check(shape.bf16 ? cublasLtMatrixLayoutCreate(&plan->b, type, n, k, shape.width)
                          : cublasLtMatrixLayoutCreate(&plan->b, type, k, n, shape.k),
               "layout of B");
  cublas_check(cublasLtMatrixLayoutCreate(&plan->d, CUDA_R_32F, m, n, shape.width), "layout of D");

  cublasLtMatmulPreference_t preference = nullptr;
  cublas_check(cublasLtMatmulPreferenceCreate(&preference), "cublasLtMatmulPreferenceCreate");
  const std::size_t workspace = kWorkspaceBytes;
  const std::uint32_t whole_sums = CUBLASLT_REDUCTION_SCHEME_NONE;
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                       sizeof workspace);
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &whole_sums,
                                       sizeof whole_sums);
  cublasLtMatmulHeuristicResult_t proposed = {};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      handle_, plan->operation, plan->a, plan->b, plan->d, plan->d, preference, 1, &proposed, &found);
  cublasLtMatmulPreferenceDestroy(preference);
  cudaGetLastError();  // it may leave an error of its own trials behind
  cublas_check(status, "cublasLtMatmulAlgoGetHeuristic");
  if (found == 0)
    throw Error("cuBLASLt has no algorithm for a product of GPTQ")
        .got(std::to_string(shape.m) + " x " + std::to_string(shape.n) + " x " + std::to_string(shape.k));
  plan->algorithm = proposed.algo;
  return plan;
}

const GptqProducts::Plan& GptqProducts::plan_for(const Shape& shape) {
  auto& plan = plans_[{shape.bf16, shape.m, shape.n, shape.k, shape.width}];
  if (!plan) plan = make_plan(shape);
  return *plan;
}

void GptqProducts::add_squares(const void* in, std::int64_t rows, std::int64_t width, float* hessian,
                               cudaStream_t stream) {
  const float two = 2, one = 1;
  for (std::int64_t row = 0; row < rows; row += kSliceRows)
    for (std::int64_t band = 0; band < width; band += kBandRows) {
      const Plan& plan = plan_for({.bf16 = true,
                                   .m = width - band,
                                   .n = std::min(kBandRows, width - band),
                                   .k = std::min(kSliceRows, rows - row),
                                   .width = width});
      const char* values = static_cast<const char*>(in) + (row * width + band) * 2;
      float* sums = hessian + band * width + band;
      cublas_check(
          cublasLtMatmul(handle_, plan.operation, &two, values, plan.a, values, plan.b, &one, sums, plan.d,
                         sums, plan.d, &plan.algorithm, workspace_.as<void>(), kWorkspaceBytes, stream),
          "cublasLtMatmul");
    }
}

void GptqProducts::subtract(const float* errors, std::int64_t rows, std::int64_t depth, const float* upper,
                            std::int64_t columns, std::int64_t width, float* weight, cudaStream_t stream) {
  const float minus_one = -1, one = 1;
  const Plan& plan = plan_for({.bf16 = false, .m = columns, .n = rows, .k = depth, .width = width});
  cublas_check(
      cublasLtMatmul(handle_, plan.operation, &minus_one, upper, plan.a, errors, plan.b, &one, weight, plan.d,
                     weight, plan.d, &plan.algorithm, workspace_.as<void>(), kWorkspaceBytes, stream),
      "cublasLtMatmul");
}

}  // namespace bise
