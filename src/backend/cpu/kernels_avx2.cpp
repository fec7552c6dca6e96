// What is included before the pragma keeps the baseline instruction set, so that no shared inline function is
// compiled for more than the processor has.
#include <immintrin.h>

#include "backend/cpu/kernels.h"

#pragma GCC target("avx2,fma,f16c,bmi2")
#include "backend/cpu/row_kernels.h"
#include "backend/cpu/simd_avx2.h"

namespace bise {

const RowKernels kAvx2Kernels = make_row_kernels<SimdAvx2>();

}  // namespace bise
