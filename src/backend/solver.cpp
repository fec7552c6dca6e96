#include "backend/solver.h"

#include <cblas.h>
#include <lapacke.h>

#include <vector>

#include "base/check.h"

namespace bise {

// A^-1 = U^T U means A = R R^T with R = U^-1 upper triangular: a Cholesky factorization from the last row to
// the first. With J the matrix that reverses the order, J A J = L L^T is an ordinary one, R = J L J and
// U = J L^-1 J. This needs neither the inverse nor a second factorization (half the work of inverting and
// factoring again) and never squares the condition number. In float64, the result rounded once.
bool invert_to_upper_cholesky(std::span<float> matrix, std::int64_t size) {
  check(size > 0 && matrix.size() == static_cast<std::size_t>(size * size), "the matrix is square");
  // The blocking, and so the rounding, of OpenBLAS depends on its number of threads; the result must not.
  openblas_set_num_threads(1);
  const auto order = static_cast<lapack_int>(size);
  // Reversed, and column-major as LAPACK likes it; only the lower triangle is read.
  std::vector<double> lower(matrix.size());
  for (std::size_t i = 0; i < matrix.size(); ++i) lower[matrix.size() - 1 - i] = matrix[i];
  if (LAPACKE_dpotrf(LAPACK_COL_MAJOR, 'L', order, lower.data(), order) != 0) return false;
  if (LAPACKE_dtrtri(LAPACK_COL_MAJOR, 'L', 'N', order, lower.data(), order) != 0) return false;
  for (std::int64_t i = 0; i < size; ++i)  // an infinite pivot passes for a large one
    if (!(lower[static_cast<std::size_t>(i * (size + 1))] > 0)) return false;
  for (std::int64_t row = 0; row < size; ++row)
    for (std::int64_t column = 0; column < size; ++column)
      matrix[static_cast<std::size_t>(row * size + column)] =
          column < row ? 0.0f
                       : static_cast<float>(
                             lower[static_cast<std::size_t>((size - 1 - column) * size + size - 1 - row)]);
  return true;
}

}  // namespace bise
