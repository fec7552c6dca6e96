// The CPU backend's LinearInput: row-major, each row encoded on its own as the instruction set's kernels
// want it, the rest of the row zero up to a multiple of kColumnPadding.
//
//   type        | AMX                           | the others
//   kNone       | bf16                          | float32
//   kInt8Token  | int8 codes and one scale      | int8 codes and one scale
//   kFp8*       | e4m3 values as bf16 (exact)   | e4m3 values as float32
//
// A row's value is code * scale(row). Of at most kFloatRows rows of kNone AMX keeps the float32 values as
// well, for linear layers that need not round them (planes_amx.h). With `float_rows` on AMX, rows of kNone
// keep float32's precision: each is the sum of two bf16 rows, 2 r and 2 r + 1 of halves(). Threads: begin()
// from one thread; then encode_row and copy_row from any thread, each row by one.
#pragma once

#include <cstdint>
#include <memory>

#include "backend/backend.h"
#include "backend/cpu/aligned_buffer.h"
#include "tensor/float_types.h"

namespace bise {

class CpuLinearInput final : public LinearInput {
 public:
  // Kernels read whole blocks of this many columns.
  static constexpr std::int64_t kColumnPadding = 128;

  CpuLinearInput(std::int64_t max_rows, std::int64_t columns, Isa isa, bool float_rows = false);

  // Drops the old rows; every row must be written before the input is used.
  void begin(std::int64_t rows, InputEncoding encoding);
  // Rounds or quantizes `values` [columns]; any alignment.
  void encode_row(std::int64_t row, const float* values);
  // The same codes and scale as row `from_row` of an input of the same columns and type.
  void copy_row(std::int64_t row, const CpuLinearInput& from, std::int64_t from_row);
  // code * scale, [columns].
  void decode_row(std::int64_t row, float* values) const;

  Isa isa() const { return isa_; }
  // Null unless the rows are kept as sums of two.
  const CpuLinearInput* halves() const { return type_ == InputType::kNone ? halves_.get() : nullptr; }
  // Whether this is another's halves(): then no precision may be lost.
  bool is_halves() const { return is_halves_; }
  bool is_int8() const { return type_ == InputType::kInt8Token; }
  // Bytes from one row to the next; an odd number of cache lines, so that the rows of a tile do not fall into
  // one set of the cache.
  std::int64_t row_bytes() const { return row_bytes_; }
  const std::byte* row_data(std::int64_t row) const { return codes_.data() + row * row_bytes_; }
  float scale(std::int64_t row) const { return scales_[row]; }
  // kNone: the row in float32, zero up to a multiple of kColumnPadding; on AMX only where keeps_floats().
  const float* float_row(std::int64_t row) const {
    return isa_ == Isa::kAmx ? float_rows_.data() + row * float_stride_
                             : reinterpret_cast<const float*>(row_data(row));
  }
  static constexpr std::int64_t kFloatRows = 32;
  bool keeps_floats() const {
    return isa_ == Isa::kAmx && type_ == InputType::kNone && !halves_ && !is_halves_ && rows_ <= kFloatRows;
  }
  // kInt8Token: the sum of the row's codes.
  std::int32_t code_sum(std::int64_t row) const { return code_sums_[row]; }

  // Memory for linear layers: up to kChunkRows rows of this input in a kernel's own order (a cache of the
  // rows, hence const).
  static constexpr std::int64_t kChunkRows = 512;
  std::int64_t packed_rows() const { return packed_rows_; }
  std::byte* packing_space() const { return packing_space_.get(); }

  // gated_linear writes a row in pieces: as bf16 where bf16_row is not null, else as float32 to staging; then
  // end_row completes the encoding.
  bf16* bf16_row(std::int64_t row) {
    return isa_ == Isa::kAmx && type_ == InputType::kNone && !halves_ && !keeps_floats()
               ? reinterpret_cast<bf16*>(row_data(row))
               : nullptr;
  }
  float* staging(std::int64_t row) { return staging_.data() + row * columns_; }
  void end_row(std::int64_t row);

 private:
  std::byte* row_data(std::int64_t row) { return codes_.data() + row * row_bytes_; }

  Isa isa_;
  float static_scale_ = 1;
  std::int64_t row_bytes_, packed_rows_;
  AlignedBuffer<std::byte> codes_;
  std::int64_t float_stride_ = 0;
  AlignedBuffer<float> float_rows_, scales_;
  AlignedBuffer<std::int32_t> code_sums_;
  std::shared_ptr<std::byte> packing_space_;
  AlignedBuffer<float> staging_;
  std::unique_ptr<CpuLinearInput> halves_;
  bool is_halves_ = false;
};

}  // namespace bise
