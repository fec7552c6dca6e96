// g++ 12's own headers leave the operand of masked intrinsics uninitialized.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "backend/cpu/hessian_amx.h"

#include <immintrin.h>

#include <algorithm>

#include "backend/cpu/amx_tiles.h"
#include "backend/cpu/transpose_avx512.h"

#pragma GCC target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl")

namespace bise {
namespace {

// Of x, a tile is 16 columns of 32 rows: as operand A [column][row], as operand B [row pair][column][2].
constexpr std::int64_t kTileColumns = 16, kTileRows = 32, kTileBytes = 1024, kRowBytes = 64;
constexpr std::int64_t kSpan = 2 * kTileColumns;  // the result is computed in squares of this many columns

// Both operands of every tile: column tile c, row group g at (c * groups + g) * kTileBytes.
struct Panels {
  std::byte *a, *b;
  std::int64_t groups;

  Panels(std::byte* scratch, std::int64_t rows, std::int64_t columns)
      : a(scratch),
        b(scratch + syrk_scratch_bytes(rows, columns) / 2),
        groups((rows + kTileRows - 1) / kTileRows) {}
  std::int64_t offset(std::int64_t tile, std::int64_t group) const {
    return (tile * groups + group) * kTileBytes;
  }
};

__m512i load_columns(const std::byte* x, std::int64_t row_bytes, std::int64_t row, std::int64_t rows,
                     std::int64_t tile) {
  if (row >= rows) return _mm512_setzero_si512();
  const std::byte* values = x + row * row_bytes + tile * kTileColumns * 2;
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)));
}

void pack_tile(const std::byte* x, std::int64_t row_bytes, std::int64_t rows, std::int64_t tile,
               std::int64_t group, const Panels& panels) {
  __m512i pairs[16];
  for (std::int64_t r = 0; r < 16; ++r) {
    const std::int64_t row = group * kTileRows + 2 * r;
    const __m512i even = load_columns(x, row_bytes, row, rows, tile);
    const __m512i odd = load_columns(x, row_bytes, row + 1, rows, tile);
    pairs[r] = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
    _mm512_store_si512(panels.b + panels.offset(tile, group) + r * kRowBytes, pairs[r]);
  }
  transpose_16x16(pairs);
  for (std::int64_t r = 0; r < 16; ++r)
    _mm512_store_si512(panels.a + panels.offset(tile, group) + r * kRowBytes, pairs[r]);
}

// sums [kSpan][kSpan] = rows [32 i, ...) and columns [32 j, ...) of x^T x.
void multiply_square(const Panels& panels, std::int64_t i, std::int64_t j, float* sums) {
  zero_tile<0>();
  zero_tile<1>();
  zero_tile<2>();
  zero_tile<3>();
  for (std::int64_t g = 0; g < panels.groups; ++g) {
    load_tile<4>(panels.a + panels.offset(2 * i, g), kRowBytes);
    load_tile<6>(panels.b + panels.offset(2 * j, g), kRowBytes);
    multiply_tiles<false, 0, 4, 6>();
    load_tile<7>(panels.b + panels.offset(2 * j + 1, g), kRowBytes);
    multiply_tiles<false, 1, 4, 7>();
    load_tile<5>(panels.a + panels.offset(2 * i + 1, g), kRowBytes);
    multiply_tiles<false, 2, 5, 6>();
    multiply_tiles<false, 3, 5, 7>();
  }
  constexpr std::int64_t kStride = kSpan * sizeof(float);
  store_tile<0>(sums, kStride);
  store_tile<1>(sums + kTileColumns, kStride);
  store_tile<2>(sums + kTileColumns * kSpan, kStride);
  store_tile<3>(sums + kTileColumns * kSpan + kTileColumns, kStride);
}

// The part of 2 * sums that lies in the upper triangle.
void add_square(const float* sums, std::int64_t i, std::int64_t j, std::int64_t columns, float* hessian) {
  for (std::int64_t r = i * kSpan; r < std::min(columns, (i + 1) * kSpan); ++r, sums += kSpan) {
    for (std::int64_t half = 0; half < 2; ++half) {
      const std::int64_t first = j * kSpan + half * kTileColumns;
      const std::int64_t below = std::clamp<std::int64_t>(r - first, 0, 16);
      const std::int64_t inside = std::clamp<std::int64_t>(columns - first, 0, 16);
      const auto kept = static_cast<__mmask16>((0xffffu << below) & ((1u << inside) - 1));
      float* out = hessian + r * columns + first;
      const __m512 sum = _mm512_load_ps(sums + half * kTileColumns);
      const __m512 value = _mm512_maskz_loadu_ps(kept, out);
      _mm512_mask_storeu_ps(out, kept, _mm512_fmadd_ps(sum, _mm512_set1_ps(2), value));
    }
  }
}

}  // namespace

std::int64_t syrk_scratch_bytes(std::int64_t rows, std::int64_t columns) {
  const std::int64_t tiles = (columns + kSpan - 1) / kSpan * 2;
  return 2 * tiles * ((rows + kTileRows - 1) / kTileRows) * kTileBytes;
}

void add_syrk(ThreadPool& pool, const std::byte* x, std::int64_t row_bytes, std::int64_t rows,
              std::int64_t columns, std::byte* scratch, float* hessian) {
  const Panels panels(scratch, rows, columns);
  const std::int64_t squares = (columns + kSpan - 1) / kSpan;
  pool.parallel_for(panels.groups, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t group = begin; group < end; ++group)
      for (std::int64_t tile = 0; tile < 2 * squares; ++tile)
        pack_tile(x, row_bytes, rows, tile, group, panels);
  });
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) config.set(tile, 16, kRowBytes);
  // The first rows are the longest: they go first, so that the threads end together.
  pool.parallel_for(squares, 1, [&](std::int64_t begin, std::int64_t end, int) {
    alignas(64) float sums[kSpan * kSpan];
    load_tile_config(config);
    for (std::int64_t i = begin; i < end; ++i) {
      for (std::int64_t j = i; j < squares; ++j) {
        multiply_square(panels, i, j, sums);
        add_square(sums, i, j, columns, hessian);
      }
    }
    release_tiles();
  });
}

}  // namespace bise
