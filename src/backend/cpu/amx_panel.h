// Panels of the weight: some tiles of 32 rows. Include inside a target region of linear_amx.cpp.
//
//   as it lies           tiles of bf16 or int8 codes that were arranged when the weight was prepared, or
//   whose
//                        rows in the file do not fall into the same sets of the cache
//   copied               such tiles whose rows would: by the tile unit itself, past the first-level cache,
//                        piece by piece beside the products of the panel before
//   widened              everything else
#pragma once

#include "backend/cpu/amx_columns.h"
#include "backend/cpu/amx_tiles.h"
#include "backend/cpu/linear_driver.h"

namespace bise {
namespace {

constexpr std::int64_t kTileRows = 16, kTileBytes = kTileRows * kTileRowBytes;

// One factor of the tile products: tile t of half h is at tile[h] + t * step, its rows `stride` apart.
struct TileSource {
  const std::byte* tile[2];
  std::int64_t stride, step;
};

// Tiles [tile, tile + tiles) of a block of the columns for the rows of a unit.
struct Panel {
  std::int64_t index = 0;  // of the unit
  Unit unit{};
  std::int64_t block = 0, tile = 0, tiles = 0;
};

// 128 columns of a row of the input as the weight wants them, 64 bytes to each of four tiles.
inline void arrange_columns(const CpuLinearInput& in, const CpuLinearWeight& weight, std::int64_t row,
                            std::int64_t column, std::byte* out, std::int64_t tile_step) {
  alignas(64) std::byte wide[256];
  const std::byte* from = in.row_data(row) + column * (in.is_int8() ? 1 : 2);
  if (in.is_int8()) {
    for (int i = 0; i < 4; ++i) widen_codes(from + 32 * i, wide + 64 * i);
    from = wide;
  }
  if (weight.nibbles()) return arrange_nibbles(from, out, tile_step);
  for (int i = 0; i < 4; ++i) _mm512_store_si512(out + i * tile_step, _mm512_loadu_si512(from + 64 * i));
}

// Whether arrange_columns changes anything.
inline bool arranges(const CpuLinearInput& in, const CpuLinearWeight& weight) {
  return weight.nibbles() || in.is_int8() != weight.integer();
}

// Whether 16 rows of the weight from `row` lie in the file as tiles of the block; then tile 0 is at `tile`.
inline bool direct_tiles(const AmxColumns& columns, const CpuLinearWeight& weight, std::int64_t row,
                         std::int64_t block, const std::byte*& tile, std::int64_t& stride) {
  if (columns.columns_of(block) % columns.tile_columns() != 0) return false;
  const LinearPart& part = weight.part_of(row);
  if (!weight.integer() && part.format != RowFormat::kBF16) return false;
  if (row + kTileRows > part.first_row + part.rows()) return false;
  tile = part.row(row - part.first_row) + block * kBlockBytes;
  stride = part.row_bytes;
  return true;
}

// The tiles of a unit's block, where both halves lie in the file as tiles.
inline bool direct_tiles(const AmxColumns& columns, const CpuLinearWeight& weight, const Unit& unit,
                         std::int64_t block, TileSource& source) {
  if (weight.in_tiles() && unit.count[1] == kTileRows) {
    for (int h = 0; h < 2; ++h)
      source.tile[h] = weight.tiles_of(unit.row[h]) + block * kBlockTiles * kTileBytes;
    source.stride = kTileRowBytes;
    source.step = kTileBytes;
    return true;
  }
  std::int64_t strides[2];
  for (int h = 0; h < 2; ++h)
    if (unit.count[h] != kTileRows ||
        !direct_tiles(columns, weight, unit.row[h], block, source.tile[h], strides[h]))
      return false;
  source.stride = strides[0];
  source.step = kTileRowBytes;
  return strides[0] == strides[1];
}

// Walks over the cache lines of some columns of a unit's weights in the order of memory, which is the order
// that the processor's own prefetching follows: only the first lines of a page wait for memory.
class WeightPrefetcher {
 public:
  WeightPrefetcher() = default;
  WeightPrefetcher(const CpuLinearWeight& weight, const Unit& unit, const AmxColumns::Range& range) {
    for (int h = 0; h < 2; ++h) {
      const std::int64_t begin = unit.row[unit.count[h] ? h : 0];
      const LinearPart& part = weight.part_of(begin);
      line_[h] = part.row(begin - part.first_row) + part.row_bytes * range.first / weight.columns();
      rows_[h] = std::min(part.first_row + part.rows() - begin, unit.count[h]);
      lines_of_row_ = (part.row_bytes * range.count / weight.columns() + 63) / 64;
      stride_ = part.row_bytes;
      if (!weight.in_tiles() || unit.count[1] != kTileRows) continue;
      line_[h] = weight.tiles_of(begin) + part.row_bytes * range.first / weight.columns() * kTileRows;
      lines_of_row_ *= kTileRows;  // all of them together
      rows_[h] = 1;
    }
    lines_ = (rows_[0] + rows_[1]) * lines_of_row_;
    left_ = lines_of_row_;
    at_ = line_[0];
    half_ = lines_ > 0 ? 0 : 2;
  }

  std::int64_t lines() const { return lines_; }

  void fetch() {
    if (half_ == 2) return;
    _mm_prefetch(at_, _MM_HINT_T1);
    at_ += 64;
    if (--left_ > 0) return;
    left_ = lines_of_row_;
    if (--rows_[half_] > 0) {
      at_ = line_[half_] += stride_;
    } else if (++half_ == 1) {
      at_ = line_[1];
      if (rows_[1] == 0) half_ = 2;
    }
  }

 private:
  const std::byte *at_ = nullptr, *line_[2] = {};
  std::int64_t rows_[2] = {}, lines_ = 0, lines_of_row_ = 0, stride_ = 0, left_ = 0;
  int half_ = 2;
};

class PanelMaker {
 public:
  static constexpr std::int64_t kPanelBytes = kPanelTiles * 2 * kTileBytes;

  // `memory`: two panels.
  PanelMaker(const AmxColumns& columns, const CpuLinearWeight& weight, std::byte* memory)
      : columns_(columns), weight_(weight), memory_{memory, memory + kPanelBytes} {}

  // `reused`: more than once.
  void begin(const Panel& panel, bool reused) {
    panel_ = panel;
    made_ = 0;
    turn_ ^= 1;
    range_ = columns_.columns_of(panel.block, panel.tile, panel.tiles);
    if (direct_tiles(columns_, weight_, panel.unit, panel.block, source_)) {
      for (const std::byte*& tile : source_.tile) tile += panel.tile * source_.step;
      // The sets of the cache that a row's part of the panel falls into repeat every 4096 bytes.
      way_ = !reused || source_.stride % 2048 != 0 ? Way::kDirect : Way::kCopy;
      pieces_ = way_ == Way::kDirect ? 0 : 2 * panel.tiles;
    } else {
      way_ = Way::kWiden;
      pieces_ = 0;  // all at once: beside products it takes longer
    }
  }
  // Whether the panel is taken from memory as it is.
  bool direct() const { return way_ == Way::kDirect; }
  // What make() has to do in all.
  std::int64_t pieces() const { return pieces_; }
  void make() {
    if (made_ < pieces_) copy(made_++);
  }
  // Makes what is left; the panel stays until the next finish().
  TileSource finish() {
    while (made_ < pieces_) make();
    if (way_ == Way::kDirect) return source_;
    // What is widened always takes the same memory, which stays in the first-level cache.
    std::byte* panel = memory_[way_ == Way::kCopy ? turn_ : 0];
    if (way_ == Way::kWiden) widen(panel);
    return {{panel, panel + kTileBytes}, kTileRowBytes, 2 * kTileBytes};
  }

 private:
  enum class Way { kDirect, kCopy, kWiden };

  // Uses tile 4, which holds nothing between two steps of a product.
  void copy(std::int64_t piece) const {
    const std::int64_t t = piece / 2, h = piece % 2;
    load_tile_once<4>(source_.tile[h] + t * source_.step, source_.stride);
    store_tile<4>(memory_[turn_] + (2 * t + h) * kTileBytes, kTileRowBytes);
  }

  void widen(std::byte* out) const {
    for (int h = 0; h < 2; ++h)
      for (std::int64_t r = 0; r < panel_.unit.count[h];) {
        const std::int64_t row = panel_.unit.row[h] + r;
        const LinearPart& part = weight_.part_of(row);
        const std::int64_t rows = std::min(panel_.unit.count[h] - r, part.first_row + part.rows() - row);
        unpack_rows(part, weight_.integer(), weight_.nibbles(),
                    {row - part.first_row, rows, range_.first, range_.count},
                    out + h * kTileBytes + r * kTileRowBytes, 2 * kTileBytes);
        r += rows;
      }
  }

  const AmxColumns& columns_;
  const CpuLinearWeight& weight_;
  std::byte* memory_[2];
  int turn_ = 0;
  Panel panel_;
  AmxColumns::Range range_{};
  TileSource source_{};
  Way way_ = Way::kWiden;
  std::int64_t pieces_ = 0, made_ = 0;
};

}  // namespace
}  // namespace bise
