// Transposition of a tile of 16 x 16 four-byte elements, four columns at a time. Include inside a region of
// target("avx512f,avx512dq").
#pragma once

#include <immintrin.h>

namespace bise {
namespace {

// out[i] = column 4 c + i of the 16 rows of 16 elements at `tile`, `stride` bytes apart.
inline void transpose_columns(const void* tile, int c, __m512 (&out)[4], long stride = 64) {
  // Lane l of part[r] is row 4 l + r, elements 4 c .. 4 c + 3; a 4 x 4 transposition within the lanes ends
  // it.
  __m512 part[4];
  for (int r = 0; r < 4; ++r) {
    const auto* rows = static_cast<const char*>(tile) + r * stride + c * 16;
    const auto* lane0 = reinterpret_cast<const float*>(rows);
    const auto* lane1 = reinterpret_cast<const float*>(rows + 4 * stride);
    const auto* lane2 = reinterpret_cast<const float*>(rows + 8 * stride);
    const auto* lane3 = reinterpret_cast<const float*>(rows + 12 * stride);
    part[r] = _mm512_castps128_ps512(_mm_loadu_ps(lane0));
    part[r] = _mm512_mask_broadcast_f32x4(part[r], 0x00f0, _mm_loadu_ps(lane1));
    part[r] = _mm512_mask_broadcast_f32x4(part[r], 0x0f00, _mm_loadu_ps(lane2));
    part[r] = _mm512_mask_broadcast_f32x4(part[r], 0xf000, _mm_loadu_ps(lane3));
  }
  const __m512d low01 = _mm512_castps_pd(_mm512_unpacklo_ps(part[0], part[1]));
  const __m512d low23 = _mm512_castps_pd(_mm512_unpacklo_ps(part[2], part[3]));
  const __m512d high01 = _mm512_castps_pd(_mm512_unpackhi_ps(part[0], part[1]));
  const __m512d high23 = _mm512_castps_pd(_mm512_unpackhi_ps(part[2], part[3]));
  out[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(low01, low23));
  out[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low01, low23));
  out[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(high01, high23));
  out[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(high01, high23));
}

}  // namespace
}  // namespace bise
