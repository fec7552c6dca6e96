// How the columns of a linear layer on AMX tiles are cut: into blocks of kBlockTiles tiles, whose sums are
// added in float32, and each block into panels of tiles that are multiplied with all rows of the input at a
// time. The same for any number of rows. Internal to the linear layers.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/cpu/linear_input.h"
#include "backend/cpu/linear_weight.h"
#include "backend/cpu/unpack_amx.h"

namespace bise {

class AmxColumns {
 public:
  struct Range {
    std::int64_t first, count;
  };

  AmxColumns(const CpuLinearInput& in, const CpuLinearWeight& weight)
      : columns_(in.columns()),
        tile_columns_(weight.integer() ? kTileRowBytes : kTileRowBytes / 2),
        granule_(weight.nibbles() ? 128 : tile_columns_) {}

  std::int64_t tile_columns() const { return tile_columns_; }
  std::int64_t block_columns() const { return kBlockTiles * tile_columns_; }
  std::int64_t blocks() const { return (columns_ + block_columns() - 1) / block_columns(); }
  std::int64_t columns_of(std::int64_t block) const {
    return std::min(block_columns(), columns_ - block * block_columns());
  }
  // Tiles of a block; whole groups of four in nibble order.
  std::int64_t tiles_of(std::int64_t block) const {
    return (columns_of(block) + granule_ - 1) / granule_ * (granule_ / tile_columns_);
  }
  // Columns of tiles [tile, tile + tiles) of a block.
  Range columns_of(std::int64_t block, std::int64_t tile, std::int64_t tiles) const {
    const std::int64_t begin = tile * tile_columns_;
    return {block * block_columns() + begin, std::min(tiles * tile_columns_, columns_of(block) - begin)};
  }
  // Panels of a block have about equal size, in whole groups of four tiles.
  std::int64_t panel_tiles(std::int64_t block) const {
    const std::int64_t tiles = tiles_of(block), panels = (tiles + kPanelTiles - 1) / kPanelTiles;
    return ((tiles + panels - 1) / panels + 3) / 4 * 4;
  }

 private:
  std::int64_t columns_, tile_columns_, granule_;
};

}  // namespace bise
