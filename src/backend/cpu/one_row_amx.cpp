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

OneRowKind kind_of(const LinearPart& part) {
  if (part.format == RowFormat::kNf4) return OneRowKind::kNf4;
  return part.format == RowFormat::kE4M3 && part.group_size == 0 ? OneRowKind::kE4M3 : OneRowKind::kNone;
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
                                  std::int64_t ahead, const float* scales, std::int64_t scale_stride,
                                  std::byte* out, std::int64_t bytes) {
  for (int i = 0; i < kRowsBeside; ++i) {
    for (std::int64_t line = 0; line < Format::kStepBytes; line += 64)
      _mm_prefetch(in + ahead + line, _MM_HINT_T1);
    format.template widen<kTail>(in, bytes, scales, out);
    in += stride;
    scales += scale_stride;
    out += kTileRowBytes;
  }
}

// A block's codes and their scales.
template <class Format>
struct Codes {
  Codes(const OneRowBlock& block, const OneRowScales& scales_of_rows)
      : format{Format(*block.part[0]), Format(*block.part[1])},
        stride(block.part[0]->row_bytes),
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
    const float* row_scales = scales.scales[h] + i % 2 * kRowsBeside * scale_stride + step * Format::kGroups;
    std::byte* out = slot + h * 4 * kTileBytes + i % 2 * kRowsBeside * kTileRowBytes;
    if (left >= kStepColumns)
      widen_rows<Format, false>(format[h], from, stride, distance, row_scales, scale_stride, out, 0);
    else
      widen_rows<Format, true>(format[h], from, stride, distance, row_scales, scale_stride, out,
                               left * Format::kStepBytes / kStepColumns);
  }

  Format format[2];
  const std::byte* in[2];
  std::int64_t stride, columns;
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
    case OneRowKind::kNf4: return multiply_as<Nibbles>(block, next);
    case OneRowKind::kE4M3: return multiply_as<Floats>(block, next);
    case OneRowKind::kNone: break;
  }
}

}  // namespace bise
