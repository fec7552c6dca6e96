#include <cblas.h>

#include "backend/solver.h"

namespace bise {

void subtract_product(std::int64_t rows, std::int64_t columns, std::int64_t depth, const float* a,
                      std::int64_t a_stride, const float* b, std::int64_t b_stride, float* c,
                      std::int64_t c_stride) {
  // Callers split the work over the program's own threads; OpenBLAS must not start others, and its result
  // must not depend on their number.
  static const bool single_threaded = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(single_threaded);
  cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, static_cast<int>(rows), static_cast<int>(columns),
              static_cast<int>(depth), -1.0f, a, static_cast<int>(a_stride), b, static_cast<int>(b_stride),
              1.0f, c, static_cast<int>(c_stride));
}

}  // namespace bise
