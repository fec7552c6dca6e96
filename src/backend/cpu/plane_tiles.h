// A few rows of the input as planes times sixteen rows of codes, on the tile unit: the codes of some columns
// are made bytes in a panel that stays in the first-level cache, the planes are packed B tiles. Include
// inside a region of target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi").
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "backend/cpu/amx_tiles.h"
#include "backend/cpu/plane_input.h"
#include "backend/cpu/plane_scales.h"
#include "backend/cpu/unpack_amx.h"

namespace bise {
namespace {

constexpr std::int64_t kPlaneTileBytes = 16 * kTileRowBytes, kPanelColumns = 512;
constexpr int kNibbleFactor = 16;  // of 4-bit codes in a panel

// The codes of sixteen rows as signed bytes, tile t of each 64 columns at out + t * kPlaneTileBytes, filled
// up to 128 columns. 4-bit codes in PlaneOrder::kNibbles64, in the upper halves of the bytes. `count` columns
// from `first`, a multiple of 128. `flip`: xored to each byte of stored codes.
template <bool kNibbles>
void unpack_panel(const std::array<const std::byte*, 16>& codes, std::uint8_t flip, std::int64_t first,
                  std::int64_t count, std::byte* out) {
  constexpr std::int64_t kStepBytes = kNibbles ? 64 : 128, kAhead = 512;
  const __m512i flips = _mm512_set1_epi8(static_cast<char>(flip));
  const __m512i upper = _mm512_set1_epi8(static_cast<char>(0xf0));
  const __m512i shifts = _mm512_zextsi256_si512(_mm256_set1_epi16(4));
  const auto upper_nibbles = [&](__m512i bytes) {
    return _mm512_ternarylogic_epi32(_mm512_sllv_epi16(bytes, shifts), flips, upper, 0x28);  // (a ^ b) & c
  };
  const auto mask_of = [](std::int64_t bytes) {
    return bytes >= 64 ? ~0ull : bytes <= 0 ? 0ull : (1ull << bytes) - 1;
  };
  for (std::int64_t c = 0; c < count; c += kPlaneColumns, out += 2 * kPlaneTileBytes) {
    const std::int64_t at = (first + c) / kPlaneColumns * kStepBytes;
    const std::int64_t bytes = ((count - c) * kStepBytes + kPlaneColumns - 1) / kPlaneColumns;
    const __mmask64 low = mask_of(bytes), high = mask_of(bytes - 64);
#pragma GCC unroll 4
    for (std::size_t r = 0; r < 16; ++r) {
      const std::byte* from = codes[r] + at;
      std::byte* to = out + r * 64;
      _mm_prefetch(from + kAhead, _MM_HINT_T1);
      if constexpr (kNibbles) {  // the bytes of 64 columns twice, for even columns and odd ones
        const __m512i both = _mm512_maskz_loadu_epi8(low, from);
        const __m512i first_half = _mm512_shuffle_i64x2(both, both, 0x44);
        const __m512i second_half = _mm512_shuffle_i64x2(both, both, 0xee);
        _mm512_store_si512(to, upper_nibbles(first_half));
        _mm512_store_si512(to + kPlaneTileBytes, upper_nibbles(second_half));
      } else {
        _mm_prefetch(from + kAhead + 64, _MM_HINT_T1);
        _mm512_store_si512(to, _mm512_xor_si512(_mm512_maskz_loadu_epi8(low, from), flips));
        _mm512_store_si512(to + kPlaneTileBytes,
                           _mm512_xor_si512(_mm512_maskz_loadu_epi8(high, from + 64), flips));
      }
    }
  }
}

// Up to kTokens rows of the input: of 8 both planes share a B tile, columns 0-7 high and 8-15 low; of 16 each
// plane has its own.
template <int kTokens>
struct PlaneLanes;
template <>
struct PlaneLanes<8> {
  using Floats = __m256;
  using Integers = __m256i;
  static constexpr int kTiles = 1, kLow = 8;  // from high to low in a stored product, in elements
  static Integers load(const std::int32_t* from) { return _mm256_load_si256((const __m256i*)from); }
  static Floats load(const float* from) { return _mm256_load_ps(from); }
  static void store(float* to, Floats values) { _mm256_store_ps(to, values); }
  static Floats zero() { return _mm256_setzero_ps(); }
  static Integers times(Integers a, std::int32_t b) { return _mm256_mullo_epi32(a, _mm256_set1_epi32(b)); }
  static Integers join(Integers high, Integers low) {
    return _mm256_add_epi32(_mm256_slli_epi32(high, 8), low);
  }
  static Integers subtract(Integers a, Integers b) { return _mm256_sub_epi32(a, b); }
  static Floats add_scaled(Integers exact, Floats factor, float scale, Floats total) {
    const Floats scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(exact), factor);
    return _mm256_fmadd_ps(scaled, _mm256_set1_ps(scale), total);
  }
};
template <>
struct PlaneLanes<16> {
  using Floats = __m512;
  using Integers = __m512i;
  static constexpr int kTiles = 2, kLow = 256;
  static Integers load(const std::int32_t* from) { return _mm512_load_si512(from); }
  static Floats load(const float* from) { return _mm512_load_ps(from); }
  static void store(float* to, Floats values) { _mm512_store_ps(to, values); }
  static Floats zero() { return _mm512_setzero_ps(); }
  static Integers times(Integers a, std::int32_t b) { return _mm512_mullo_epi32(a, _mm512_set1_epi32(b)); }
  static Integers join(Integers high, Integers low) {
    return _mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
  }
  static Integers subtract(Integers a, Integers b) { return _mm512_sub_epi32(a, b); }
  static Floats add_scaled(Integers exact, Floats factor, float scale, Floats total) {
    const Floats scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(exact), factor);
    return _mm512_fmadd_ps(scaled, _mm512_set1_ps(scale), total);
  }
};

// B tiles of 128 columns of `count` <= kTokens rows at `out`, in the order that PlaneTiles reads them, and
// the sums and scales of each span at sums + 16 * span and factors + 16 * span.
template <int kTokens, int kSpan, PlaneOrder kOrder>
void pack_planes(const std::optional<PlaneSplitter>* rows, std::int64_t count, std::int64_t column,
                 std::byte* out, std::int32_t* sums, float* factors) {
  constexpr std::size_t kTiles = PlaneLanes<kTokens>::kTiles, kSpans = kPlaneColumns / kSpan;
  alignas(64) std::byte lines[2][kTiles][16][64] = {};
  for (std::size_t t = 0; t < static_cast<std::size_t>(count); ++t) {
    const Planes planes = rows[t]->template split<kOrder, kSpan>(column);
    for (std::size_t half = 0; half < 2; ++half) {
      _mm512_store_si512(lines[half][0][t], planes.high[half]);
      _mm512_store_si512(kTiles == 1 ? lines[half][0][8 + t] : lines[half][1][t], planes.low[half]);
    }
    for (std::size_t s = 0; s < kSpans; ++s) {
      sums[16 * s + t] = sum_of_span<kSpan>(planes, static_cast<int>(s));
      factors[16 * s + t] =
          planes.scales[s * (kSpan / 32)] * (kOrder == PlaneOrder::kNatural ? 1.0f : 1.0f / kNibbleFactor);
    }
  }
  for (std::size_t half = 0; half < 2; ++half)
    for (std::size_t tile = 0; tile < kTiles; ++tile) {
      if constexpr (kSpan > 32) {
        transpose_tile(lines[half][tile][0], 64, out);
        out += kPlaneTileBytes;
      } else {
        // The other span's columns are zero.
        alignas(64) std::byte both[kPlaneTileBytes];
        transpose_tile(lines[half][tile][0], 64, both);
        constexpr std::size_t kPeriod = kOrder == PlaneOrder::kNatural ? 16 : 8;
        std::byte* to = out + (2 * half * kTiles + tile) * kPlaneTileBytes;
        for (std::size_t r = 0; r < 16; ++r) {
          const bool second = r % kPeriod >= kPeriod / 2;
          const __m512i line = _mm512_load_si512(both + 64 * r), zero = _mm512_setzero_si512();
          _mm512_store_si512(to + 64 * r, second ? zero : line);
          _mm512_store_si512(to + kTiles * kPlaneTileBytes + 64 * r, second ? line : zero);
        }
      }
    }
}

// Bytes of the B tiles of 128 columns.
template <int kTokens, int kSpan>
constexpr std::int64_t kPackedStep = (kSpan == 32 ? 4 : 2) * PlaneLanes<kTokens>::kTiles* kPlaneTileBytes;

// The products of a panel. kOffsets: each row and span has its own offset.
template <int kTokens, int kSpan, bool kOffsets>
class PlaneTiles {
  using Lanes = PlaneLanes<kTokens>;

 public:
  // totals [16 rows of codes, 16] += the panel's `spans` spans times the rows of the input; = for the first.
  void add_panel(const std::byte* panel, const std::byte* tokens, std::int64_t spans,
                 const float (*scales)[16], const std::int32_t (*offsets)[16], const std::int32_t* sums,
                 const float* factors, bool first, float* totals) {
    typename Lanes::Floats rows[16];
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) rows[r] = first ? Lanes::zero() : Lanes::load(totals + 16 * r);
    const auto fold = [&](std::int64_t span) __attribute__((always_inline)) {
      const std::int32_t* products = products_[span % kSets];
      const auto factor = Lanes::load(factors + 16 * span);
#pragma GCC unroll 16
      for (int r = 0; r < 16; ++r) {
        auto exact =
            Lanes::join(Lanes::load(products + 16 * r), Lanes::load(products + 16 * r + Lanes::kLow));
        if constexpr (kOffsets)
          exact = Lanes::subtract(exact, Lanes::times(Lanes::load(sums + 16 * span), offsets[span][r]));
        rows[r] = Lanes::add_scaled(exact, factor, scales[span][r], rows[r]);
      }
    };
    // A span's products are stored when those of the next have been started, and added one span later: by
    // then the tile unit has them.
    for (std::int64_t span = 0; span < spans + kLag + 1; ++span) {
      if (span < spans) on_set(span, [&]<int kSet>() { multiply<kSet>(panel, tokens, span); });
      if (span >= kLag && span < spans + kLag) on_set(span - kLag, [&]<int kSet>() { store<kSet>(); });
      if (span > kLag) fold(span - kLag - 1);
    }
#pragma GCC unroll 16
    for (int r = 0; r < 16; ++r) Lanes::store(totals + 16 * r, rows[r]);
  }

 private:
  static constexpr int kTilesOfSpan = kSpan == 128 ? 2 : 1;
  // Sets of accumulators, kTiles from tile 0 on, which spans take in turn.
  static constexpr int kSets = 4 / Lanes::kTiles, kLag = kSets - 1;

  template <class Body>
  [[gnu::always_inline]] static void on_set(std::int64_t span, const Body& body) {
    switch (span % kSets) {
      case 0: return body.template operator()<0>();
      case 1: return body.template operator()<1>();
      case 2: return body.template operator()<2 % kSets>();
      case 3: return body.template operator()<3 % kSets>();
    }
  }

  template <int kSet>
  [[gnu::always_inline]] static void multiply(const std::byte* panel, const std::byte* tokens,
                                              std::int64_t span) {
    constexpr int kFirst = kSet * Lanes::kTiles, kWeights = 4 + kSet % 2;
    zero_tile<kFirst>();
    if constexpr (Lanes::kTiles == 2) zero_tile<kFirst + 1>();
    panel += (kSpan == 32 ? span / 2 : span * kTilesOfSpan) * kPlaneTileBytes;
    tokens += span * kTilesOfSpan * Lanes::kTiles * kPlaneTileBytes;
#pragma GCC unroll 2
    for (int t = 0; t < kTilesOfSpan; ++t) {
      load_tile<kWeights>(panel + t * kPlaneTileBytes, kTileRowBytes);
      if constexpr (Lanes::kTiles == 1) {
        load_tile<6 + kSet % 2>(tokens + t * kPlaneTileBytes, kTileRowBytes);
        multiply_tiles<true, kFirst, kWeights, 6 + kSet % 2>();
      } else {
        load_tile<6>(tokens + 2 * t * kPlaneTileBytes, kTileRowBytes);
        multiply_tiles<true, kFirst, kWeights, 6>();
        load_tile<7>(tokens + (2 * t + 1) * kPlaneTileBytes, kTileRowBytes);
        multiply_tiles<true, kFirst + 1, kWeights, 7>();
      }
    }
  }

  template <int kSet>
  [[gnu::always_inline]] void store() {
    constexpr int kFirst = kSet * Lanes::kTiles;
    store_tile<kFirst>(products_[kSet], kTileRowBytes);
    if constexpr (Lanes::kTiles == 2) store_tile<kFirst + 1>(products_[kSet] + 256, kTileRowBytes);
  }

  alignas(64) std::int32_t products_[kSets][256 * Lanes::kTiles];
};

}  // namespace
}  // namespace bise
