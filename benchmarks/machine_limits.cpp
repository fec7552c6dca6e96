#include "machine_limits.h"

// g++ 12 warns of the unset registers in its own AVX-512 intrinsics (gcc bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <algorithm>

#include "backend/cpu/amx_tiles.h"
#include "base/clock.h"

namespace bise {
namespace {

constexpr int kRepetitions = 5;
constexpr std::int64_t kSteps = 200'000;

// The best of several runs of `body` on all threads, in seconds.
template <class Body>
double best_seconds(ThreadPool& pool, const Body& body) {
  double best = 1e9;
  for (int i = 0; i < kRepetitions; ++i) {
    const Stopwatch watch;
    pool.run(body);
    best = std::min(best, watch.seconds());
  }
  return best;
}

template <bool kInteger>
void multiply_tiles_repeatedly(int) {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) config.set(tile, 16, 64);
  load_tile_config(config);
  for (std::int64_t i = 0; i < kSteps; ++i) {
    multiply_tiles<kInteger, 0, 4, 6>();
    multiply_tiles<kInteger, 1, 4, 7>();
    multiply_tiles<kInteger, 2, 5, 6>();
    multiply_tiles<kInteger, 3, 5, 7>();
  }
  release_tiles();
}

#pragma GCC push_options
#pragma GCC target("avx2,fma")
void multiply_floats_avx2(int) {
  __m256 acc[10] = {};
  const __m256 one = _mm256_set1_ps(1.0f);
  for (std::int64_t i = 0; i < kSteps; ++i) {
    for (__m256& a : acc) a = _mm256_fmadd_ps(one, one, a);
    asm volatile("" : "+x"(acc[0]));
  }
  for (__m256& a : acc) asm volatile("" : : "x"(a));
}
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512vnni")
void multiply_floats_avx512(int) {
  __m512 acc[10] = {};
  const __m512 one = _mm512_set1_ps(1.0f);
  for (std::int64_t i = 0; i < kSteps; ++i) {
    for (__m512& a : acc) a = _mm512_fmadd_ps(one, one, a);
    asm volatile("" : "+v"(acc[0]));
  }
  for (__m512& a : acc) asm volatile("" : : "v"(a));
}

void multiply_codes_avx512(int) {
  __m512i acc[10] = {};
  const __m512i one = _mm512_set1_epi32(0x01010101);
  for (std::int64_t i = 0; i < kSteps; ++i) {
    for (__m512i& a : acc) a = _mm512_dpbusd_epi32(a, one, one);
    asm volatile("" : "+v"(acc[0]));
  }
  for (__m512i& a : acc) asm volatile("" : : "v"(a));
}
#pragma GCC pop_options

}  // namespace

double peak_operations(ThreadPool& pool, Isa isa, bool integer) {
  const double steps = static_cast<double>(kSteps) * pool.threads();
  switch (isa) {
    case Isa::kAmx:
      return integer ? steps * 4 * 2 * 16 * 16 * 64 / best_seconds(pool, multiply_tiles_repeatedly<true>)
                     : steps * 4 * 2 * 16 * 16 * 32 / best_seconds(pool, multiply_tiles_repeatedly<false>);
    case Isa::kAvx512:
      return integer ? steps * 10 * 2 * 64 / best_seconds(pool, multiply_codes_avx512)
                     : steps * 10 * 2 * 16 / best_seconds(pool, multiply_floats_avx512);
    case Isa::kAvx2: return integer ? 0 : steps * 10 * 2 * 8 / best_seconds(pool, multiply_floats_avx2);
    case Isa::kScalar: return 0;
  }
  return 0;
}

}  // namespace bise
