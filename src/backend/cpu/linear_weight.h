// What prepare_cpu_linear makes of stored matrices: views of the mapped file plus a few floats a row, or a
// copy in the order of tiles. Owned by the LinearWeight; read-only after construction, so every thread may
// use it. Internal to the linear layers of backend/cpu.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/aligned_buffer.h"
#include "base/thread_pool.h"

namespace bise {

// How one row of codes lies in memory. kOther is any scheme that has no kernel of its own: computed through
// dequantize_row, correct and slow.
enum class RowFormat { kF32, kF16, kBF16, kInt8, kInt8Packed, kInt4Packed, kE4M3, kNf4, kOther };

// One stored matrix. Its value is (code - zero point) * scale; a scale of the whole row is applied to the
// product (CpuLinearWeight::row_scales), one of a group of columns while widening the weight.
struct LinearPart {
  StoredLinear stored;
  RowFormat format = RowFormat::kOther;
  std::int64_t first_row = 0;       // in the joined weight
  const std::byte* data = nullptr;  // row r of codes is at data + r * row_bytes
  std::int64_t row_bytes = 0;
  std::int64_t group_size = 0;  // columns that share a scale; 0: the scale belongs to the whole row
  AlignedBuffer<float> levels;  // kInt4Packed, kNf4: the 16 values of a code before zero point and scale

  std::int64_t rows() const { return stored.rows; }
  const std::byte* row(std::int64_t row) const { return data + row * row_bytes; }
  // Scales and zero points of groups [first, first + count) of a row, as float; 1 and 0 where the row's scale
  // is applied to the product, or where the groups end.
  void load_groups(std::int64_t row, std::int64_t first, std::int64_t count, float* scales,
                   float* zero_points) const;
  // Columns [first, first + count) of a row as float32 through the definition, for kOther; slow.
  void dequantize(std::int64_t row, std::int64_t first, std::int64_t count, float* out) const;
};

class CpuLinearWeight final : public LinearWeight {
 public:
  CpuLinearWeight(std::vector<StoredLinear> parts, Isa isa);

  Isa isa() const { return isa_; }
  const std::vector<LinearPart>& parts() const { return parts_; }
  // The part that holds row `row` of the joined weight.
  const LinearPart& part_of(std::int64_t row) const;
  // Every part has int8 codes with one scale a row and the input is int8: integer products.
  bool integer() const { return integer_; }
  // AMX: every part has 4-bit codes, so the columns of both factors are in nibble order (unpack_amx.h).
  bool nibbles() const { return nibbles_; }
  // AVX-512 and AMX: all parts have integer codes of one kind that are not multiplied as integer() has it, so
  // that rows of input are taken as planes (planes_avx512.h, planes_amx.h), a span of this many columns at a
  // time: 32, 64 or 128; else 0.
  int plane_span() const { return plane_span_; }
  // AMX: copies the rows into tiles, if every part has whole tiles of bf16 or of integer()'s codes.
  void arrange_tiles(ThreadPool& pool);
  bool in_tiles() const { return tiles_.size() > 0; }
  // The tiles of rows [row, row + 16), from one row of the weight to the next 64 bytes; `row` is a multiple.
  const std::byte* tiles_of(std::int64_t row) const { return tiles_.data() + row * row_bytes_; }
  // [rows] factors of the product, and what is added to it; null when all are 1 or 0.
  const float* row_scales() const { return row_scales_.size() ? row_scales_.data() : nullptr; }
  const float* bias() const { return bias_.size() ? bias_.data() : nullptr; }

 private:
  void add_part(StoredLinear stored);
  bool has_whole_tiles() const;
  int find_plane_span() const;

  Isa isa_;
  std::vector<LinearPart> parts_;
  bool integer_ = false, nibbles_ = false;
  int plane_span_ = 0;
  std::int64_t row_bytes_ = 0;  // of tiles_
  AlignedBuffer<std::byte> tiles_;
  AlignedBuffer<float> row_scales_, bias_;
};

}  // namespace bise
