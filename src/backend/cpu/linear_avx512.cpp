// g++ 12 warns of the unset registers in its own AVX-512 intrinsics (gcc bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "backend/cpu/linear_kernels.h"
#include "backend/cpu/linear_scratch.h"
#include "backend/cpu/planes_avx512.h"
#include "tensor/float_types.h"

// What is included above keeps the baseline instruction set, so that no shared inline function is compiled
// for more than the processor has.
#pragma GCC target( \
    "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,prefer-vector-width=512")
#include "backend/cpu/linear_rows_kernel.h"
#include "backend/cpu/simd_avx512.h"

namespace bise {
namespace {

struct Avx512Codes : SimdAvx512 {
  static constexpr int kRows = 4, kTokens = 4;
  // Weights enter as code + 128, because vpdpbusd wants one unsigned factor.
  static constexpr std::int32_t kCodeOffset = 128;

  static void widen_f16(const std::uint16_t* in, std::int64_t count, float* out) {
    for (std::int64_t i = 0; i < count; i += kWidth) {
      const __mmask16 lanes = first_lanes(std::min(kWidth, count - i));
      _mm512_mask_storeu_ps(out + i, lanes, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, in + i)));
    }
  }

  // Sixteen codes of two words are shifted down to their lanes; the lookup ignores the bits above.
  static void widen_nibbles(const std::uint8_t* in, std::int64_t count, bool high_first, const float* levels,
                            float zero_point, float scale, float* out) {
    const __m512 table = mul(sub(load(levels), set(zero_point)), set(scale));
    const __m512i word_of_lane = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m256i shifts8 = high_first ? _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24)
                                       : _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    const __m512i shifts = _mm512_broadcast_i64x4(shifts8);
    for (std::int64_t i = 0; i < count; i += kWidth, in += 8) {
      const std::int64_t lanes = std::min(kWidth, count - i);
      std::int64_t words = 0;
      std::memcpy(&words, in, lanes == kWidth ? 8 : static_cast<std::size_t>(lanes + 1) / 2);
      const __m512i spread = _mm512_permutexvar_epi32(word_of_lane, _mm512_set1_epi64(words));
      store_first(out + i, _mm512_permutexvar_ps(_mm512_srlv_epi32(spread, shifts), table), lanes);
    }
  }

  static Vec widen_bytes(const std::int8_t* in) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)in)));
  }
  static Vec widen_bytes(const std::uint8_t* in) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)in)));
  }

  // Sixteen codes: two words.
  struct Nibbles {
    void set(bool high_first, const float* levels, float zero_point, float scale) {
      table = mul(sub(load(levels), SimdAvx512::set(zero_point)), SimdAvx512::set(scale));
      shifts = _mm512_broadcast_i64x4(high_first ? _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24)
                                                 : _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
    }
    Vec operator()(const std::uint8_t* in) const {
      const __m512i first = _mm512_broadcastd_epi32(_mm_loadu_si32(in));
      const __m512i both = _mm512_mask_broadcastd_epi32(first, 0xff00, _mm_loadu_si32(in + 4));
      return _mm512_permutexvar_ps(_mm512_srlv_epi32(both, shifts), table);
    }
    __m512 table;
    __m512i shifts;
  };

  template <int R, int T>
  static void dot_codes(const std::int8_t* w, std::int64_t w_stride, const std::int8_t* x,
                        std::int64_t x_stride, std::int64_t columns, std::int32_t* sums) {
    const __m512i offset = _mm512_set1_epi8(static_cast<char>(0x80));
    __m512i acc[R][T];
    for (int r = 0; r < R; ++r)
      for (int t = 0; t < T; ++t) acc[r][t] = _mm512_setzero_si512();
    for (std::int64_t k = 0; k < columns; k += 64) {
      const __mmask64 inside = columns - k >= 64 ? ~0ull : (1ull << (columns - k)) - 1;
      if constexpr (T == 1) {
        for (int r = 0; r < R; ++r) __builtin_prefetch(w + r * w_stride + k + kBytesAhead, 0, 2);
      }
      __m512i weight[R];
      for (int r = 0; r < R; ++r)
        weight[r] = _mm512_xor_si512(_mm512_maskz_loadu_epi8(inside, w + r * w_stride + k), offset);
      for (int t = 0; t < T; ++t) {
        const __m512i value = _mm512_loadu_si512(x + t * x_stride + k);
        for (int r = 0; r < R; ++r) acc[r][t] = _mm512_dpbusd_epi32(acc[r][t], weight[r], value);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int t = 0; t < T; ++t) sums[r * T + t] = _mm512_reduce_add_epi32(acc[r][t]);
  }
};

}  // namespace

void avx512_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                   const CpuLinearWeight& weight, CpuMatrix& out) {
  if (weight.plane_span()) return avx512_planes(pool, buffers, in, weight, &out, nullptr);
  run_linear<RowProduct<Avx512Codes>>(pool, buffers, in, weight, out);
}

void avx512_gated_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                         const CpuLinearWeight& gate_up, CpuLinearInput& out) {
  if (gate_up.plane_span()) return avx512_planes(pool, buffers, in, gate_up, nullptr, &out);
  run_gated<RowProduct<Avx512Codes>>(pool, buffers, in, gate_up, out);
}

}  // namespace bise
