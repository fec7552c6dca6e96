#include "backend/cuda/gptq_products.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "backend/cuda/gptq_kernels.h"
#include "base/error.h"

namespace bise {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{64} << 20;
// Of a sum on the tensor cores: 256 additions, each cut to float32, are off by some 2^-17 at most.
constexpr std::int64_t kSliceRows = 4096;
// The triangle is computed in bands of so many rows, each from its diagonal on.
constexpr std::int64_t kBandRows = 2048;

}  // namespace

// In cuBLAS's column-major words: D [m, n] = factor A B + keep D, A [m, k], B [k, n], or with `transposed`
// [n, k]; each with the distance between its columns, and between the matrices of a batch.
struct GptqProducts::Shape {
  cudaDataType_t type = CUDA_R_32F;  // of A and B; D is float64 with them, else float32
  bool transposed = false;
  std::int64_t m = 0, n = 0, k = 0;
  std::int64_t a_stride = 0, b_stride = 0, d_stride = 0;
  std::int64_t batch = 1, a_batch_stride = 0, b_batch_stride = 0, d_batch_stride = 0;
};

GptqProducts::GptqProducts() : workspace_(kWorkspaceBytes) {
  cublas_check(cublasLtCreate(&handle_), "cublasLtCreate");
}

GptqProducts::~GptqProducts() {
  cublasLtDestroy(handle_);
}

std::unique_ptr<CublasPlan> GptqProducts::make_plan(const Shape& shape) const {
  auto plan = std::make_unique<CublasPlan>();
  const bool is_double = shape.type == CUDA_R_64F;
  const cudaDataType_t out = is_double ? CUDA_R_64F : CUDA_R_32F;
  cublas_check(
      cublasLtMatmulDescCreate(&plan->operation, is_double ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F, out),
      "cublasLtMatmulDescCreate");
  if (shape.transposed) plan->set(CUBLASLT_MATMUL_DESC_TRANSB, CUBLAS_OP_T);
  const auto layout = [&](cudaDataType_t type, std::int64_t rows, std::int64_t columns, std::int64_t stride,
                          std::int64_t batch_stride) {
    cublasLtMatrixLayout_t made = nullptr;
    cublas_check(cublasLtMatrixLayoutCreate(&made, type, static_cast<std::uint64_t>(rows),
                                            static_cast<std::uint64_t>(columns), stride),
                 "layout of a matrix");
    const auto batch = static_cast<std::int32_t>(shape.batch);
    cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &batch, sizeof batch);
    cublasLtMatrixLayoutSetAttribute(made, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &batch_stride,
                                     sizeof batch_stride);
    return made;
  };
  plan->a = layout(shape.type, shape.m, shape.k, shape.a_stride, shape.a_batch_stride);
  plan->b = shape.transposed ? layout(shape.type, shape.n, shape.k, shape.b_stride, shape.b_batch_stride)
                             : layout(shape.type, shape.k, shape.n, shape.b_stride, shape.b_batch_stride);
  plan->d = layout(out, shape.m, shape.n, shape.d_stride, shape.d_batch_stride);

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

void GptqProducts::run(const Shape& shape, double factor, const void* a, const void* b, double keep, void* d,
                       cudaStream_t stream) {
  auto& plan =
      plans_[{shape.type, shape.transposed, shape.m, shape.n, shape.k, shape.a_stride, shape.b_stride,
              shape.d_stride, shape.batch, shape.a_batch_stride, shape.b_batch_stride, shape.d_batch_stride}];
  if (!plan) plan = make_plan(shape);
  const float float_factor = static_cast<float>(factor), float_keep = static_cast<float>(keep);
  const bool is_double = shape.type == CUDA_R_64F;
  cublas_check(
      cublasLtMatmul(handle_, plan->operation, is_double ? static_cast<const void*>(&factor) : &float_factor,
                     a, plan->a, b, plan->b, is_double ? static_cast<const void*>(&keep) : &float_keep, d,
                     plan->d, d, plan->d, &plan->algorithm, workspace_.as<void>(), kWorkspaceBytes, stream),
      "cublasLtMatmul");
}

void GptqProducts::add_squares(const void* in, std::int64_t rows, std::int64_t width, float* hessian,
                               cudaStream_t stream) {
  for (std::int64_t row = 0; row < rows; row += kSliceRows)
    for (std::int64_t band = 0; band < width; band += kBandRows) {
      const char* values = static_cast<const char*>(in) + (row * width + band) * 2;
      run({.type = CUDA_R_16BF,
           .transposed = true,
           .m = width - band,
           .n = std::min(kBandRows, width - band),
           .k = std::min(kSliceRows, rows - row),
           .a_stride = width,
           .b_stride = width,
           .d_stride = width},
          2, values, values, 1, hessian + band * width + band, stream);
    }
}

void GptqProducts::subtract(const float* errors, std::int64_t rows, std::int64_t depth, const float* upper,
                            std::int64_t columns, std::int64_t width, float* weight, cudaStream_t stream) {
  run({.type = CUDA_R_32F,
       .m = columns,
       .n = rows,
       .k = depth,
       .a_stride = width,
       .b_stride = depth,
       .d_stride = width},
      -1, upper, errors, 1, weight, stream);
}

void GptqProducts::join_inverses(double* matrix, std::int64_t stride, std::int64_t first, std::int64_t size,
                                 std::int64_t second, std::int64_t batch, cudaStream_t stream) {
  const auto at = [&](std::int64_t row, std::int64_t column) {
    return matrix + (first + column) * stride + first + row;
  };
  const std::int64_t pair_stride = 2 * size * (stride + 1);
  joined_.grow(static_cast<std::size_t>(batch * size * second) * sizeof(double));
  // B A^-1, then -C^-1 times that.
  run({.type = CUDA_R_64F,
       .m = second,
       .n = size,
       .k = size,
       .a_stride = stride,
       .b_stride = stride,
       .d_stride = second,
       .batch = batch,
       .a_batch_stride = pair_stride,
       .b_batch_stride = pair_stride,
       .d_batch_stride = size * second},
      1, at(size, 0), at(0, 0), 0, joined_.as<void>(), stream);
  run({.type = CUDA_R_64F,
       .m = second,
       .n = size,
       .k = second,
       .a_stride = stride,
       .b_stride = second,
       .d_stride = stride,
       .batch = batch,
       .a_batch_stride = pair_stride,
       .b_batch_stride = size * second,
       .d_batch_stride = pair_stride},
      -1, at(size, size), joined_.as<void>(), 0, at(size, 0), stream);
}

void GptqProducts::invert_lower(double* matrix, std::int64_t size, cudaStream_t stream) {
  cuda::invert_diagonal_blocks(matrix, size, stream);
  for (std::int64_t block = cuda::kInverseBlock; block < size; block *= 2) {
    const std::int64_t pairs = size / (2 * block), rest = size - pairs * 2 * block;
    if (pairs > 0) join_inverses(matrix, size, 0, block, block, pairs, stream);
    if (rest > block) join_inverses(matrix, size, pairs * 2 * block, block, rest - block, 1, stream);
  }
}

}  // namespace bise
