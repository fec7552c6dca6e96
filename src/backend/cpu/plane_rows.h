// Some rows of the input as planes times two times sixteen rows of codes, on the vector units without tiles:
// a multiplication takes 4 columns of sixteen rows of codes and of one row of the input. Include inside a
// region of target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni").
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <utility>

#include "backend/cpu/dot_bytes_avx512.h"
#include "backend/cpu/plane_input.h"
#include "backend/cpu/plane_scales.h"
#include "backend/cpu/transpose_avx512.h"

namespace bise {
namespace {

// Rows of the input that are multiplied together, and of codes: their sums stay in registers.
constexpr std::int64_t kTileTokens = 12, kUnitsTogether = 2;
// Codes of this many columns and the planes of a tile's rows fit the first-level cache together.
constexpr std::int64_t kPanelColumns = 512;
constexpr std::int64_t kQuadBytes = 64, kStepQuads = kPlaneColumns / 4;  // 4 columns of sixteen rows

// Rows that a tile is computed as.
inline std::int64_t padded_tokens(std::int64_t count) {
  return (count + 3) / 4 * 4;
}

// The codes of sixteen rows as unsigned bytes, for each 4 columns those of row 0, then of row 1, ..., filled
// up to 128 columns. Of each 8 columns of 4-bit codes the even ones come first. `count` columns from `first`,
// a multiple of 128. `flip`: xored to each byte to make it unsigned.
template <bool kNibbles>
void unpack_quads(const std::array<const std::byte*, 16>& codes, std::uint8_t flip, std::int64_t first,
                  std::int64_t count, std::byte* out) {
  constexpr std::int64_t kStepBytes = kNibbles ? 64 : 128, kAhead = 512;
  const __m512i flips = _mm512_set1_epi8(static_cast<char>(flip)), nibble = _mm512_set1_epi8(15);
  for (std::int64_t c = 0; c < count; c += kPlaneColumns) {
    const std::int64_t at = (first + c) / kPlaneColumns * kStepBytes;
    const std::int64_t bytes = ((count - c) * kStepBytes + kPlaneColumns - 1) / kPlaneColumns;
    for (std::int64_t part = 0; part < kStepBytes; part += 64) {
      const std::int64_t left = bytes - part;
      const __mmask64 inside = left >= 64 ? ~0ull : left <= 0 ? 0ull : (1ull << left) - 1;
      __m512i rows[16];
      for (std::size_t r = 0; r < 16; ++r) {
        _mm_prefetch(codes[r] + at + part + kAhead, _MM_HINT_T0);
        rows[r] = _mm512_maskz_loadu_epi8(inside, codes[r] + at + part);
      }
      transpose_16x16(rows);
      for (int quad = 0; quad < 16; ++quad, out += kQuadBytes) {
        if constexpr (kNibbles) {
          _mm512_store_si512(out, _mm512_and_si512(rows[quad], nibble));
          out += kQuadBytes;
          _mm512_store_si512(out, _mm512_and_si512(_mm512_srli_epi16(rows[quad], 4), nibble));
        } else {
          _mm512_store_si512(out, _mm512_xor_si512(rows[quad], flips));
        }
      }
    }
  }
}

// A tile's rows of the input, `tokens` of them, filled with zero rows: for each 128 columns the high plane,
// then the low one, of each 4 columns those of row 0, then of row 1, ... Int8 rows have the low one only.
struct PlaneTile {
  std::int64_t tokens, planes;
  std::byte* digits;
  std::int32_t* sums;  // [spans, tokens], times the offset of all codes where spans have none of their own
  float* factors;      // [spans, tokens]

  std::int64_t plane_bytes() const { return kPlaneColumns * tokens; }  // of 128 columns
  // Of one row.
  static std::int64_t row_bytes(std::int64_t steps, std::int64_t planes, int span) {
    return steps * kPlaneColumns * planes + steps * kPlaneColumns / span * 8;
  }
  PlaneTile(std::byte* memory, std::int64_t count, std::int64_t steps, std::int64_t of_planes, int span)
      : tokens(padded_tokens(count)),
        planes(of_planes),
        digits(memory),
        sums(reinterpret_cast<std::int32_t*>(memory + steps * kPlaneColumns * planes * tokens)),
        factors(reinterpret_cast<float*>(sums + steps * kPlaneColumns / span * tokens)) {}
};

// Fills 128 columns of the tile from the column on; `scale_of_sums`: what the sums are multiplied with.
template <bool kNibbles, int kSpan>
void pack_tile(const std::optional<PlaneSplitter>* rows, std::int64_t count, std::int64_t column,
               std::int32_t scale_of_sums, const PlaneTile& tile) {
  constexpr PlaneOrder kOrder = kNibbles ? PlaneOrder::kNibbles128 : PlaneOrder::kNatural;
  constexpr int kSpans = kPlaneColumns / kSpan;
  const auto lanes = static_cast<__mmask16>((1u << tile.tokens) - 1u);
  const std::int64_t step = column / kPlaneColumns;
  std::int32_t* sums = tile.sums + step * kSpans * tile.tokens;
  float* factors = tile.factors + step * kSpans * tile.tokens;
  __m512i lines[2][2][16] = {};  // plane, half of the columns, row
  std::fill_n(sums, kSpans * tile.tokens, 0);
  std::fill_n(factors, kSpans * tile.tokens, 0.0f);
  for (std::int64_t t = 0; t < count; ++t) {
    const Planes planes = rows[t]->template split<kOrder, kSpan>(column);
    for (int half = 0; half < 2; ++half) {
      lines[0][half][t] = planes.high[half];
      lines[1][half][t] = planes.low[half];
    }
    for (int s = 0; s < kSpans; ++s) {
      sums[s * tile.tokens + t] = sum_of_span<kSpan>(planes, s) * scale_of_sums;
      factors[s * tile.tokens + t] = planes.scales[s * (kSpan / 32)];
    }
  }
  std::byte* out = tile.digits + step * tile.planes * tile.plane_bytes();
  for (auto* plane = lines + 2 - tile.planes; plane != lines + 2; ++plane, out += tile.plane_bytes())
    for (int half = 0; half < 2; ++half) {
      transpose_16x16((*plane)[half]);
      for (int i = 0; i < 16; ++i) {
        const int quad = kNibbles ? 2 * i + half : 16 * half + i;
        _mm512_mask_storeu_epi32(out + quad * 4 * tile.tokens, lanes, (*plane)[half][i]);
      }
    }
}

// Codes of some columns of two times sixteen rows, with the scales and offsets of their spans; no offsets
// where all codes have the same.
struct PlanePanel {
  const std::byte* codes[kUnitsTogether];
  const float (*scales[kUnitsTogether])[16];
  const std::int32_t (*offsets[kUnitsTogether])[16];
  std::int64_t spans;
};

// body(0), body(1), ... with constant arguments: in loops that are unrolled later the compiler keeps an array
// of registers in memory as well.
template <int kCount, class Body>
[[gnu::always_inline]] inline void unrolled(const Body& body) {
  [&]<int... kAt>(std::integer_sequence<int, kAt...>) __attribute__((always_inline)) {
    (body(std::integral_constant<int, kAt>()), ...);
  }
  (std::make_integer_sequence<int, kCount>());
}

// sums[t], and sums[kTokens + t] of the second unit, += the products of one plane over `quads` times 4
// columns. Loops are unrolled, so that the sums stay in registers.
template <int kTokens>
[[gnu::always_inline]] inline void add_quads(const std::byte* first, const std::byte* second,
                                             const std::byte* digits, std::int64_t quads,
                                             __m512i (&sums)[2 * kTokens]) {
  for (const std::byte* end = first + quads * kQuadBytes; first != end;
       first += kQuadBytes, second += kQuadBytes, digits += 4 * kTokens) {
    const __m512i codes[2] = {_mm512_load_si512(first), _mm512_load_si512(second)};
    unrolled<kTokens>([&](auto t) __attribute__((always_inline)) {
      const __m512i x = _mm512_set1_epi32(reinterpret_cast<const std::int32_t*>(digits)[t]);
      sums[t] = add_dot_bytes(sums[t], codes[0], x);
      sums[kTokens + t] = add_dot_bytes(sums[kTokens + t], codes[1], x);
    });
  }
}

// totals [two times sixteen rows, kTokens] += a span of the panel times the tile's.
template <int kTokens>
[[gnu::always_inline]] inline void add_span(const PlanePanel& panel, std::int64_t span, std::int64_t quads,
                                            const PlaneTile& tile, const std::byte* digits, float* totals) {
  const std::int64_t at = span * quads * kQuadBytes;
  __m512i sums[2 * kTokens];
  unrolled<2 * kTokens>([&](auto i) __attribute__((always_inline)) { sums[i] = _mm512_setzero_si512(); });
  add_quads<kTokens>(panel.codes[0] + at, panel.codes[1] + at, digits, quads, sums);
  if (tile.planes == 2) {
    unrolled<2 * kTokens>([&](auto i)
                              __attribute__((always_inline)) { sums[i] = _mm512_slli_epi32(sums[i], 8); });
    add_quads<kTokens>(panel.codes[0] + at, panel.codes[1] + at, digits + tile.plane_bytes(), quads, sums);
  }
  unrolled<2 * kTokens>([&](auto i) __attribute__((always_inline)) {
    const std::int64_t t = span * kTokens + i % kTokens;
    constexpr int kUnit = i / kTokens;
    __m512i offset = _mm512_set1_epi32(tile.sums[t]);
    if (panel.offsets[kUnit])
      offset = _mm512_mullo_epi32(offset, _mm512_load_si512(panel.offsets[kUnit][span]));
    const __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sums[i], offset));
    const __m512 scaled = _mm512_mul_ps(exact, _mm512_set1_ps(tile.factors[t]));
    float* total = totals + 16 * i;
    _mm512_store_ps(
        total, _mm512_fmadd_ps(scaled, _mm512_load_ps(panel.scales[kUnit][span]), _mm512_load_ps(total)));
  });
}

// totals += the panel times the tile, whose spans and columns begin with it; a span has `quads` times 4
// columns.
template <int kTokens>
void add_panel(const PlanePanel& panel, const PlaneTile& tile, std::int64_t quads, float* totals) {
  const std::byte* step = tile.digits;
  for (std::int64_t span = 0, quad = 0; span < panel.spans; ++span) {
    add_span<kTokens>(panel, span, quads, tile, step + quad * 4 * kTokens, totals);
    quad += quads;
    if (quad < kStepQuads) continue;
    quad = 0;
    step += tile.planes * tile.plane_bytes();
  }
}

}  // namespace
}  // namespace bise
