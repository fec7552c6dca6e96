// g++ 12's own headers leave the operand of masked intrinsics uninitialized.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "backend/cpu/value_tile.h"

#include <immintrin.h>

#include "backend/cpu/transpose_avx512.h"

#pragma GCC target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")
#include "backend/cpu/simd_avx512.h"

namespace bise {

void store_value_tile(const float* values, std::int64_t row_stride, std::int64_t tokens,
                      std::int64_t head_dim, std::int64_t block_size, bf16* out) {
  for (std::int64_t d = 0; d < head_dim; d += 16) {
    // Row r: for each of 16 dims the pair of tokens 2r and 2r + 1.
    __m512i pairs[16];
    for (std::int64_t r = 0; r < 16; ++r) {
      const float* even = values + 2 * r * row_stride + d;
      pairs[r] = _mm512_setzero_si512();
      if (2 * r < tokens) pairs[r] = _mm512_srli_epi32(SimdAvx512::rounded(_mm512_loadu_ps(even)), 16);
      if (2 * r + 1 < tokens)
        pairs[r] = _mm512_mask_mov_epi16(pairs[r], 0xaaaaaaaa,
                                         SimdAvx512::rounded(_mm512_loadu_ps(even + row_stride)));
    }
    transpose_16x16(pairs);
    for (std::int64_t i = 0; i < 16; ++i) _mm512_storeu_si512(out + (d + i) * block_size, pairs[i]);
  }
}

}  // namespace bise
