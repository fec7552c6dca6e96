// AMX tile instructions as functions; tile numbers are template arguments. Own assembly because g++ 12's
// _tile_loadconfig names only 8 of the 64 bytes it reads and its _tile_loadd does not say that it reads
// memory. Only for processors that available_isas() lists with Isa::kAmx.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bise {

// Shapes of the eight tiles (Intel SDM, LDTILECFG): rows, and bytes of one row.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};

  void set(int tile, int rows_of_tile, int bytes) {
    rows[tile] = static_cast<std::uint8_t>(rows_of_tile);
    row_bytes[tile] = static_cast<std::uint16_t>(bytes);
  }
};

inline void load_tile_config(const TileConfig& config) {
  asm volatile("ldtilecfg %0" : : "m"(config) : "memory");
}

// Back to the initial state, so that a context switch need not save the tiles.
inline void release_tiles() {
  asm volatile("tilerelease" : : : "memory");
}

template <int kTile>
inline void zero_tile() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

// Row r of the tile from base + r * stride bytes.
template <int kTile>
inline void load_tile(const std::byte* base, std::int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(base), "r"(stride), "i"(kTile) : "memory");
}

// The same for data that will not be used again soon: it need not stay in the first-level cache.
template <int kTile>
inline void load_tile_once(const std::byte* base, std::int64_t stride) {
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" : : "r"(base), "r"(stride), "i"(kTile) : "memory");
}

template <int kTile>
inline void store_tile(void* base, std::int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(base), "r"(stride), "i"(kTile) : "memory");
}

// C[m][n] += sum over k of A[m][k] * B[k][n]; a 4-byte element of A and B holds 2 bf16 or 4 int8 values of k.
template <bool kInteger, int kC, int kA, int kB>
inline void multiply_tiles() {
  if constexpr (kInteger) {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  } else {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB));
  }
}

}  // namespace bise
