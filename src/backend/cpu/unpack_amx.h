// Widening of stored weights into tile rows for AMX: bf16 values, or int8 codes as they are.
//
// Columns in nibble order (4-bit codes): of each 128 columns, tile t of four holds columns 4 j + t, j =
// 0..31. Then the codes of a tile are found by one shift of the packed words; arrange_nibbles puts the input
// into the same order.
#pragma once

#include <array>
#include <cstdint>

#include "backend/cpu/linear_weight.h"

namespace bise {

constexpr std::int64_t kTileRowBytes = 64;

// Columns whose products are summed in a tile before they are added in float32.
constexpr std::int64_t kBlockTiles = 64;
constexpr std::int64_t kBlockBytes = kBlockTiles * kTileRowBytes;
// Columns that are widened at a time: 32 rows of them leave room in a first-level cache of 48 KiB.
constexpr std::int64_t kPanelTiles = 20;

// Rows [row, row + count) of a part, at most a panel of their columns.
struct PanelRows {
  std::int64_t row, count;
  std::int64_t first_column, columns;
};

// The rows as rows of tiles: row r of tile t at out + t * tile_step + r * kTileRowBytes. The last tile (with
// `nibbles`: the last four) is filled up with values whose columns are zero in the input. `integer`: int8
// codes; else bf16, rounded to nearest even after group scales.
void unpack_rows(const LinearPart& part, bool integer, bool nibbles, const PanelRows& rows, std::byte* out,
                 std::int64_t tile_step);

// 128 bf16 values into nibble order; out tile t at out + t * tile_step.
void arrange_nibbles(const std::byte* in, std::byte* out, std::int64_t tile_step);

// The two bytes of the bf16 of every non-negative e4m3 code.
struct E4M3Table {
  alignas(64) std::array<std::uint8_t, 128> low, high;
};
const E4M3Table& e4m3_table();

// 32 int8 codes as bf16.
void widen_codes(const std::byte* in, std::byte* out);

// Rows of 4-byte elements, 16 rows of 64 bytes `stride` apart -> the transposed 16 rows of 64 bytes at `out`.
void transpose_tile(const std::byte* in, std::int64_t stride, std::byte* out);

// 128 bf16 values of 16 rows `stride` apart, brought into nibble order and transposed: four tiles as
// transpose_tile makes them, tile_step apart.
void transpose_nibbles(const std::byte* in, std::int64_t stride, std::byte* out, std::int64_t tile_step);

}  // namespace bise
