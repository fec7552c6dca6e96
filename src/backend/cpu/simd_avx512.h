// Float vectors of 16 lanes (see simd.h). Include inside a region of
// target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl").
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "backend/cpu/simd.h"
#include "tensor/float_types.h"

namespace bise {

struct SimdAvx512 {
  using Vec = __m512;
  static constexpr std::int64_t kWidth = 16, kTileRows = 8, kTileVectors = 3;

  static __mmask16 first_lanes(std::int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
  static Vec zero() { return _mm512_setzero_ps(); }
  static Vec set(float value) { return _mm512_set1_ps(value); }
  static Vec load(const float* p) { return _mm512_loadu_ps(p); }
  static Vec load(const bf16* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
  }
  // The sign to the top, exponent and fraction to where a half float has them.
  static Vec load(const e4m3* p) {
    const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i half = _mm256_srai_epi16(_mm256_slli_epi16(wide, 8), 1);
    return _mm512_cvtph_ps(_mm256_and_si256(half, _mm256_set1_epi16(static_cast<short>(0xbf80))));
  }
  static Vec load_first(const float* p, std::int64_t n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
  static void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
  // The bfloat16 nearest to each lane, in its upper 16 bits.
  static __m512i rounded(Vec v) {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_mask_mov_epi32(sum, nan, _mm512_set1_epi32(0x7fc00000));
  }
  static void store(bf16* p, Vec v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded(v), 16)));
  }
  static void store_first(float* p, Vec v, std::int64_t n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }

  static Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
  static Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
  static Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
  static Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
  static Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
  static Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
  static float sum(Vec v) { return _mm512_reduce_add_ps(v); }
  static float max_lane(Vec v) { return _mm512_reduce_max_ps(v); }

  // vreduceps gives x - floor(x) (0 for -infinity); vscalefps multiplies by 2^floor(x).
  static Vec exp2(Vec x) {
    const Vec value = _mm512_scalef_ps(exp2_fraction<SimdAvx512>(_mm512_reduce_ps(x, 1)), x);
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, set(kSmallestExponent), _CMP_GE_OQ), value);
  }
};

}  // namespace bise
