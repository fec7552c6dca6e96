#include "backend/cpu/kernels.h"
#include "backend/cpu/row_kernels.h"
#include "backend/cpu/simd_scalar.h"

namespace bise {

const RowKernels kScalarKernels = make_row_kernels<SimdScalar>();

}  // namespace bise
