// One row of input times stored weights that are widened, on AMX: the vector units widen the weights of 128
// columns into first-level cache while the tile unit multiplies the 128 columns before. Sums each output over
// the same tiles in the same order as linear_amx.cpp does for many rows. Owned by one thread for one layer.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/cpu/linear_weight.h"

namespace bise {

// What one kind of kernel widens.
enum class OneRowKind { kNone, kNf4, kE4M3 };

// Columns [first_column, first_column + columns) of two times 16 rows, each of one part of the weight.
struct OneRowBlock {
  static constexpr std::int64_t kRows = 16;
  const LinearPart* part[2];
  std::int64_t row[2];  // in the part
  std::int64_t first_column, columns;
  // The same columns of the input in the weight's order, bf16, zero up to a multiple of 128.
  const std::byte* x;

  // kNone where the rows are not widened here.
  OneRowKind kind() const;
};

// Scales of a block: of row r of half h at scales[h] + r * stride[h].
struct OneRowScales {
  static constexpr std::int64_t kMaxGroups = 32;  // of a block of 2048 columns
  static constexpr std::int64_t kSize = OneRowBlock::kRows * (kMaxGroups + 16);
  alignas(64) float scales[2][kSize];
  std::int64_t stride[2];
};

class OneRowAmx {
 public:
  // Bytes that `ring` points to: 128 columns of 32 rows, twice; 64-byte aligned.
  static constexpr std::int64_t kRingBytes = 16 << 10;
  explicit OneRowAmx(std::byte* ring) : ring_(ring) {}

  // Adds the products of the rows of half h to tile 2 h; tiles 1, 3, 4 and 5 are of 16 rows of 64
  // bytes, 6 and 7 of 4. `kind` is the block's, not kNone. `next`: the block of the following call if it is
  // of the same kind, or null.
  void multiply(OneRowKind kind, const OneRowBlock& block, const OneRowBlock* next);

 private:
  template <class Format>
  void multiply_as(const OneRowBlock& block, const OneRowBlock* next);

  std::byte* ring_;
  int slot_ = 0, turn_ = 0;
  // The first 128 columns of the block lie in the ring, its first tiles are loaded, its scales in
  // scales_[turn_].
  bool primed_ = false;
  OneRowScales scales_[2];
};

}  // namespace bise
