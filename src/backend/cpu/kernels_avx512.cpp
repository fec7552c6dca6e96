// What is included before the pragma keeps the baseline instruction set, so that no shared inline function is
// compiled for more than the processor has.
// g++ 12's own headers leave the operand of masked intrinsics uninitialized.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "backend/cpu/kernels.h"

#pragma GCC target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")
#include "backend/cpu/row_kernels.h"
#include "backend/cpu/simd_avx512.h"

namespace bise {

const RowKernels kAvx512Kernels = make_row_kernels<SimdAvx512>();

}  // namespace bise
