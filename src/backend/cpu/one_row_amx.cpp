#include "backend/cpu/one_row_amx.h"
#include "tensor/float_types.h"

// g++ 12 warns of the unset registers in its own AVX-512 intrinsics (gcc bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <algorithm>

#include "backend/cpu/amx_tiles.h"
#include "backend/cpu/unpack_amx.h"

// What is included above keeps the baseline instruction set, so that no shared inline function is compiled
// for more than the processor has.
#pragma GCC target( \
    "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vbmi")

#include "backend/cpu/one_row_scales.h"
#include "backend/cpu/one_row_widen.h"

namespace bise {
namespace {

OneRowKind by_group(OneRowKind group32, std::int64_t group_size) {
  const int kind = static_cast<int>(group32);
  return static_cast<OneRowKind>(group_size == 32 ? kind : group_size == 64 ? kind + 1 : kind + 2);
}

OneRowKind kind_of(const LinearPart& part) {
  const StoredLinear& stored = part.stored;
  const std::int64_t size = part.group_size;
  if (part.format == RowFormat::kNf4) return OneRowKind::kNf4;
  if (stored.scheme.strategy == Strategy::kBlock) return OneRowKind::kNone;
  if (part.format == RowFormat::kInt4Packed && size != 0) {
    if (stored.zero_point.empty()) return by_group(OneRowKind::kInt4Group32, size);
    if (stored.zero_point.dtype() != DType::kI32) return OneRowKind::kNone;
    return by_group(OneRowKind::kInt4AsymmetricGroup32, size);
  }
  if (!stored.zero_point.empty()) return OneRowKind::kNone;
  if (part.format == RowFormat::kE4M3) return size == 0 ? OneRowKind::kE4M3 : OneRowKind::kNone;
  if (size != 0 && size != 32 && size != 64 && size % 128 != 0) return OneRowKind::kNone;
  if (size != 0 && stored.scale.dtype() == DType::kF32) return OneRowKind::kNone;  // see Bytes
  if (part.format == RowFormat::kInt8)
    return size == 0 ? OneRowKind::kInt8 : by_group(OneRowKind::kInt8Group32, size);
  if (part.format == RowFormat::kInt8Packed)
    return size == 0 ? OneRowKind::kInt8Packed : by_group(OneRowKind::kInt8PackedGroup32, size);
  return OneRowKind::kNone;
}

// A pair of weight tiles and the input's tile into registers, two sets in turn; and their products.
template <int kSet>
void load_set(const std::byte* weights, const std::byte* x) {
  load_tile<6 + kSet>(x, 4);
  load_tile<kSet ? 1 : 4>(weights, kTileRowBytes);
  load_tile<kSet ? 3 : 5>(weights + 4 * kTileBytes, kTileRowBytes);
}

template <int kSet>
void multiply_set() {
  multiply_tiles<false, 0, kSet ? 1 : 4, 6 + kSet>();
  multiply_tiles<false, 2, kSet ? 3 : 5, 6 + kSet>();
}

constexpr int kRowsBeside = 8;  // rows that are widened beside each product
// kRowsBeside rows of 128 columns. `bytes`: left of each row, with kTail. `ahead`: from a row to what to
// fetch.
template <class Format, bool kTail>
[[gnu::noinline]] void widen_rows(const Format& format, const std::byte* in, std::int64_t stride,
                                  std::int64_t ahead, const float* scales, const float* zero_points,
                                  std::int64_t scale_stride, std::byte* out, std::int64_t bytes) {
  for (int i = 0; i < kRowsBeside; ++i) {
    for (std::int64_t line = 0; line < Format::kStepBytes; line += 64)
      _mm_prefetch(in + ahead + line, _MM_HINT_T1);
    format.template widen<kTail>(in, bytes, scales, zero_points, out);
    in += stride;
    scales += scale_stride;
    zero_points += scale_stride;
    out += kTileRowBytes;
  }
}

// A block's codes and their scales.
template <class Format>
struct Codes {
  Codes(const OneRowBlock& block, const OneRowScales& scales_of_rows)
      : format{Format(*block.part[0]), Format(*block.part[1])},
        stride(block.part[0]->row_bytes),
        first_column(block.first_column),
        columns(block.columns),
        scales(scales_of_rows) {
    for (int h = 0; h < 2; ++h)
      in[h] = block.part[h]->row(block.row[h]) + block.first_column / kStepColumns * Format::kStepBytes;
  }

  // Rows [8 i, 8 i + 8) at step `step` of the columns; fetches the same rows of `ahead` at its own step.
  [[gnu::always_inline]] void widen(std::int64_t step, int i, std::byte* slot, const Codes& ahead,
                                    std::int64_t ahead_step) const {
    const int h = i / 2;
    const std::int64_t row = i % 2 * kRowsBeside * stride;
    const std::byte* from = in[h] + row + step * Format::kStepBytes;
    const std::int64_t distance = ahead.in[h] + row + ahead_step * Format::kStepBytes - from;
    const std::int64_t left = columns - step * kStepColumns;
    const std::int64_t scale_stride = scales.stride[h];
    const std::int64_t scale = i % 2 * kRowsBeside * scale_stride + format[h].scale_index(first_column, step);
    const float *row_scales = scales.scales[h] + scale, *zero_points = scales.zero_points[h] + scale;
    std::byte* out = slot + h * 4 * kTileBytes + i % 2 * kRowsBeside * kTileRowBytes;
    if (left >= kStepColumns)
      widen_rows<Format, false>(format[h], from, stride, distance, row_scales, zero_points, scale_stride, out,
                                0);
    else
      widen_rows<Format, true>(format[h], from, stride, distance, row_scales, zero_points, scale_stride, out,
                               left * Format::kStepBytes / kStepColumns);
  }

  Format format[2];
  const std::byte* in[2];
  std::int64_t stride, first_column, columns;
  const OneRowScales& scales;
};

void load_block_scales(const OneRowBlock& block, OneRowScales& scales) {
  for (int h = 0; h < 2; ++h) {
    scales.stride[h] = 0;
    if (block.part[h]->group_size != 0) load_groups(block, h, scales);
  }
}

}  // namespace

OneRowKind OneRowBlock::kind() const {
  const OneRowKind first = kind_of(*part[0]);
  if (part[1] != part[0] && kind_of(*part[1]) != first) return OneRowKind::kNone;
  for (int h = 0; h < 2; ++h)
    if (row[h] + kRows > part[h]->rows()) return OneRowKind::kNone;
  return first;
}

template <class Format>
void OneRowAmx::multiply_as(const OneRowBlock& block, const OneRowBlock* next) {
  constexpr std::int64_t kSlotBytes = kRingBytes / 2;
  const std::int64_t steps = (block.columns + kStepColumns - 1) / kStepColumns;
  OneRowScales &scales = scales_[turn_], &next_scales = scales_[turn_ ^ 1];
  const Codes<Format> codes(block, scales), ahead(next ? *next : block, next_scales);
  if (!primed_) {
    load_block_scales(block, scales);
    for (int i = 0; i < 4; ++i) codes.widen(0, i, ring_ + slot_ * kSlotBytes, ahead, 0);
    load_set<0>(ring_ + slot_ * kSlotBytes, block.x);
  }
  if (next) load_block_scales(*next, next_scales);
  const std::byte* x = block.x;
  for (std::int64_t step = 0; step < steps; ++step, x += 4 * kTileRowBytes) {
    const std::byte* tiles = ring_ + slot_ * kSlotBytes;
    slot_ ^= 1;
    std::byte* slot = ring_ + slot_ * kSlotBytes;
    const bool last = step + 1 == steps, more = !last || next;
    const Codes<Format>& coming = last ? ahead : codes;
    const std::int64_t coming_step = last ? 0 : step + 1;
    if (more) coming.widen(coming_step, 0, slot, ahead, step);
    load_set<1>(tiles + kTileBytes, x + kTileRowBytes);
    multiply_set<0>();
    if (more) coming.widen(coming_step, 1, slot, ahead, step);
    load_set<0>(tiles + 2 * kTileBytes, x + 2 * kTileRowBytes);
    multiply_set<1>();
    if (more) coming.widen(coming_step, 2, slot, ahead, step);
    load_set<1>(tiles + 3 * kTileBytes, x + 3 * kTileRowBytes);
    multiply_set<0>();
    if (more) {
      coming.widen(coming_step, 3, slot, ahead, step);
      load_set<0>(slot, last ? next->x : x + 4 * kTileRowBytes);
    }
    multiply_set<1>();
  }
  primed_ = next != nullptr;
  turn_ ^= 1;
}

void OneRowAmx::multiply(OneRowKind kind, const OneRowBlock& block, const OneRowBlock* next) {
  switch (kind) {
    case OneRowKind::kInt4Group32: return multiply_as<Nibbles<4, false, false>>(block, next);
    case OneRowKind::kInt4Group64: return multiply_as<Nibbles<2, false, false>>(block, next);
    case OneRowKind::kInt4Group128: return multiply_as<Nibbles<1, false, false>>(block, next);
    case OneRowKind::kInt4AsymmetricGroup32: return multiply_as<Nibbles<4, false, true>>(block, next);
    case OneRowKind::kInt4AsymmetricGroup64: return multiply_as<Nibbles<2, false, true>>(block, next);
    case OneRowKind::kInt4AsymmetricGroup128: return multiply_as<Nibbles<1, false, true>>(block, next);
    case OneRowKind::kNf4: return multiply_as<Nibbles<2, true, false>>(block, next);
    case OneRowKind::kInt8: return multiply_as<Bytes<0, false>>(block, next);
    case OneRowKind::kInt8Group32: return multiply_as<Bytes<4, false>>(block, next);
    case OneRowKind::kInt8Group64: return multiply_as<Bytes<2, false>>(block, next);
    case OneRowKind::kInt8Group128: return multiply_as<Bytes<1, false>>(block, next);
    case OneRowKind::kInt8Packed: return multiply_as<Bytes<0, true>>(block, next);
    case OneRowKind::kInt8PackedGroup32: return multiply_as<Bytes<4, true>>(block, next);
    case OneRowKind::kInt8PackedGroup64: return multiply_as<Bytes<2, true>>(block, next);
    case OneRowKind::kInt8PackedGroup128: return multiply_as<Bytes<1, true>>(block, next);
    case OneRowKind::kE4M3: return multiply_as<Floats>(block, next);
    case OneRowKind::kNone: break;
  }
}

}  // namespace bise
