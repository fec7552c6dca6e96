#include <immintrin.h>

#include "backend/cpu/linear_kernels.h"
#include "backend/cpu/linear_scratch.h"
#include "tensor/float_types.h"

// What is included above keeps the baseline instruction set, so that no shared inline function is compiled
// for more than the processor has.
#pragma GCC target("avx2,fma,f16c,bmi2")
#include "backend/cpu/linear_rows_kernel.h"
#include "backend/cpu/simd_avx2.h"

namespace bise {
namespace {

struct Avx2Codes : SimdAvx2 {
  static constexpr int kRows = 4, kTokens = 2;
  static constexpr std::int32_t kCodeOffset = 0;

  static void widen_f16(const std::uint16_t* in, std::int64_t count, float* out) {
    for (std::int64_t i = 0; i < count; i += kWidth) {
      alignas(16) std::uint16_t halves[kWidth] = {};
      const std::int64_t lanes = std::min(kWidth, count - i);
      std::memcpy(halves, in + i, static_cast<std::size_t>(lanes) * 2);
      store_first(out + i, _mm256_cvtph_ps(_mm_load_si128(reinterpret_cast<const __m128i*>(halves))), lanes);
    }
  }

  // Eight codes of one word, shifted down to their lanes and looked up in two halves of a table.
  struct Nibbles {
    void set(bool high_first, const float* levels, float zero_point, float scale) {
      low = mul(sub(load(levels), SimdAvx2::set(zero_point)), SimdAvx2::set(scale));
      high = mul(sub(load(levels + 8), SimdAvx2::set(zero_point)), SimdAvx2::set(scale));
      shifts = high_first ? _mm256_setr_epi32(4, 0, 12, 8, 20, 16, 28, 24)
                          : _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    }
    Vec operator()(const std::uint8_t* in) const {
      const __m256i codes = _mm256_srlv_epi32(_mm256_broadcastd_epi32(_mm_loadu_si32(in)), shifts);
      const __m256 bit3 = _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28));
      return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, codes), _mm256_permutevar8x32_ps(high, codes),
                              bit3);
    }
    __m256 low, high;
    __m256i shifts;
  };

  static void widen_nibbles(const std::uint8_t* in, std::int64_t count, bool high_first, const float* levels,
                            float zero_point, float scale, float* out) {
    Nibbles widen;
    widen.set(high_first, levels, zero_point, scale);
    std::int64_t i = 0;
    for (; i + kWidth <= count; i += kWidth, in += 4) store(out + i, widen(in));
    if (i == count) return;
    std::uint8_t last[4] = {};
    std::memcpy(last, in, static_cast<std::size_t>(count - i + 1) / 2);
    store_first(out + i, widen(last), count - i);
  }

  static Vec widen_bytes(const std::int8_t* in) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)in)));
  }
  static Vec widen_bytes(const std::uint8_t* in) {
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)in)));
  }

  static __m256i wide(const std::int8_t* codes) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
  }

  template <int R, int T>
  static void dot_codes(const std::int8_t* w, std::int64_t w_stride, const std::int8_t* x,
                        std::int64_t x_stride, std::int64_t columns, std::int32_t* sums) {
    __m256i acc[R][T];
    for (int r = 0; r < R; ++r)
      for (int t = 0; t < T; ++t) acc[r][t] = _mm256_setzero_si256();
    std::int64_t k = 0;
    for (; k + 16 <= columns; k += 16) {
      if (T == 1 && k % 64 == 0) {
        for (int r = 0; r < R; ++r) __builtin_prefetch(w + r * w_stride + k + kBytesAhead, 0, 2);
      }
      __m256i weight[R];
      for (int r = 0; r < R; ++r) weight[r] = wide(w + r * w_stride + k);
      for (int t = 0; t < T; ++t) {
        const __m256i value = wide(x + t * x_stride + k);
        for (int r = 0; r < R; ++r)
          acc[r][t] = _mm256_add_epi32(acc[r][t], _mm256_madd_epi16(weight[r], value));
      }
    }
    for (int r = 0; r < R; ++r)
      for (int t = 0; t < T; ++t) {
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(acc[r][t]), _mm256_extracti128_si256(acc[r][t], 1));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
        s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
        std::int32_t sum = _mm_cvtsi128_si32(s);
        for (std::int64_t i = k; i < columns; ++i) sum += w[r * w_stride + i] * x[t * x_stride + i];
        sums[r * T + t] = sum;
      }
  }
};

}  // namespace

void avx2_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                 const CpuLinearWeight& weight, CpuMatrix& out) {
  run_linear<RowProduct<Avx2Codes>>(pool, buffers, in, weight, out);
}

void avx2_gated_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                       const CpuLinearWeight& gate_up, CpuLinearInput& out) {
  run_gated<RowProduct<Avx2Codes>>(pool, buffers, in, gate_up, out);
}

}  // namespace bise
