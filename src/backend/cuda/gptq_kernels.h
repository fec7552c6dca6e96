// The kernels of GPTQ (gptq.cu), launched on `stream`. Pointers are device memory. Matrices of float32 have
// `width` values a row: the columns rounded up to kPad, so that every block of columns is aligned.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "backend/cuda/cuda_kernels.h"

namespace bise::cuda {

// Columns whose errors are spread among themselves before a product spreads them over the rest.
constexpr int kGptqBlock = 128;

enum class StoredFloat { kBf16, kF16, kF32 };

// A weight [rows, columns] as stored.
struct StoredWeight {
  const void* data = nullptr;
  StoredFloat type = StoredFloat::kBf16;
  std::int64_t rows = 0, columns = 0;
};

// ranges[i] = smallest and largest of the i-th run of `group_columns` weights and of zero.
void weight_ranges(const StoredWeight& weight, std::int64_t group_columns, float2* ranges,
                   cudaStream_t stream);

// What potrf takes: matrix [columns, columns] of float64, column-major lower triangle, rows and columns of
// hessian / divisor in the reverse of `order`; a zero on the diagonal becomes 1, `damping` is added to it.
// The upper triangle of `hessian` [width, width] is read.
void reversed_hessian(const float* hessian, std::int64_t width, std::int64_t columns,
                      const std::int32_t* order, float divisor, float damping, double* matrix,
                      cudaStream_t stream);
// Of the lower triangular `matrix` [size, size], column-major: the blocks of kInverseBlock on the diagonal
// become their inverses, everything above the diagonal zero.
constexpr int kInverseBlock = 64;
void invert_diagonal_blocks(double* matrix, std::int64_t size, cudaStream_t stream);
// upper [columns, width] = the inverse of the Cholesky factor `inverse` (column-major) turned back,
// zeros below the diagonal. *bad becomes 1 where a diagonal element is not positive.
void upper_factor(const double* inverse, std::int64_t columns, std::int64_t width, float* upper, int* bad,
                  cudaStream_t stream);
void identity(std::int64_t columns, std::int64_t width, float* upper, cudaStream_t stream);

// out [rows, width]: column i is column order[i] of the weight, zero where the Hessian's
// `diagonal` [columns] is.
void ordered_weight(const StoredWeight& weight, const std::int32_t* order, const float* diagonal,
                    std::int64_t width, float* out, cudaStream_t stream);

// Scales, and what a code may be.
struct CodeRule {
  bool is_e4m3 = false;
  int bits = 8;
  std::int64_t groups = 1, group_columns = 1;
  const float* scales = nullptr;             // [rows, groups]
  const std::int8_t* zero_points = nullptr;  // [rows, groups] or null
  StoredFloat product = StoredFloat::kF32;   // (code - zero point) * scale is rounded to it
};

// Quantizes columns [begin, begin + kGptqBlock) (fewer at the end) of `weight` [rows, width]. codes
// [rows, width] in the order of quantization; errors [rows, kGptqBlock] = (w - q) / U_ii; losses [rows] grow
// by half the squares of the errors.
void quantize_columns(const float* weight, std::int64_t rows, std::int64_t columns, std::int64_t width,
                      std::int64_t begin, const float* upper, const std::int32_t* order, const CodeRule& rule,
                      std::uint8_t* codes, float* errors, double* losses, cudaStream_t stream);

// The codes in the checkpoint's order: words [rows, ceil(columns * bits / 32)] as tensor/pack.h packs them,
// or bytes [rows, columns]. sums [rows, 2] = squares of the errors and of the weights. With `derive_again`
// the codes are those of what `codes` stand for, every step rounded to rule.product.
void finish_codes(const StoredWeight& weight, std::int64_t width, const std::int32_t* order,
                  const CodeRule& rule, const std::uint8_t* codes, bool derive_again, bool packed, void* out,
                  double* sums, cudaStream_t stream);

}  // namespace bise::cuda
