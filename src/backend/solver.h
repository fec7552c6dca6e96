// Dense linear algebra for GPTQ on the host, by LAPACK.
#pragma once

#include <cstdint>
#include <span>

namespace bise {

// Replaces the symmetric positive definite `matrix` [size, size] (row-major, both triangles) by the upper
// Cholesky factor U of its inverse, matrix^-1 = U^T U; the strict lower triangle is zeroed.
// Returns false, leaving `matrix` undefined, when it is not positive definite.
bool invert_to_upper_cholesky(std::span<float> matrix, std::int64_t size);

// c [rows, columns] -= a [rows, depth] b [depth, columns]; row-major with the given strides, on the calling
// thread alone.
void subtract_product(std::int64_t rows, std::int64_t columns, std::int64_t depth, const float* a,
                      std::int64_t a_stride, const float* b, std::int64_t b_stride, float* c,
                      std::int64_t c_stride);

}  // namespace bise
