// Dot products of stored rows of codes and one row of input, widened in registers, for the instruction sets
// without tiles. Adds in the same order as unpack_floats and dot_floats (linear_rows_kernel.h) do for
// many rows, so that both give the same bits. A kernel template (simd.h); `Codes` has, besides:
//   widen_bytes(p)                    kWidth signed or unsigned bytes as floats
//   Nibbles                           set(high_first, levels, zero_point, scale), then (p): kWidth codes as
//                                     widen_nibbles has their values
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "backend/cpu/linear_weight.h"
#include "tensor/float_types.h"

namespace bise {

namespace {  // each instruction set has its own copy

bool widens_in_registers(const LinearPart& part) {
  return part.format == RowFormat::kBF16 || part.format == RowFormat::kInt4Packed ||
         part.format == RowFormat::kNf4 || part.format == RowFormat::kInt8 ||
         part.format == RowFormat::kInt8Packed;
}

}  // namespace

// The weights that are read so much later are fetched: the processor's own prefetching does not follow rows
// that are read in pieces.
constexpr std::int64_t kBytesAhead = 16 << 10;

// kWidth bytes as (code - zero point) * scale.
template <class Codes>
struct WidenBytes {
  void set(float zero_point, float scale) {
    zero = Codes::set(zero_point);
    factor = Codes::set(scale);
  }
  template <class Code>
  typename Codes::Vec operator()(const Code* in) const {
    return Codes::mul(Codes::sub(Codes::widen_bytes(in), zero), factor);
  }
  typename Codes::Vec zero, factor;
};

// kWidth values of bfloat16.
template <class Codes>
struct WidenBf16 {
  typename Codes::Vec operator()(const bf16* in) const { return Codes::load(in); }
};

// Loops over r are unrolled, so that acc stays in registers.
//
// acc[r] += row r of codes times x, over `count` columns; kPerCode columns a Code. Rows are `stride` codes
// apart.
template <class Codes, int kPerCode, int R, class Widen, class Code>
void fma_rows(const Widen (&widen)[R], const Code* in, std::int64_t stride, std::int64_t count,
              const float* x, typename Codes::Vec (&acc)[R]) {
  constexpr std::int64_t kCodes = Codes::kWidth / kPerCode;
  std::int64_t i = 0;
  for (; i + Codes::kWidth <= count; i += Codes::kWidth, in += kCodes) {
    if (i * static_cast<std::int64_t>(sizeof(Code)) / kPerCode % 64 == 0) {
      for (int r = 0; r < R; ++r)
        __builtin_prefetch(reinterpret_cast<const std::byte*>(in + r * stride) + kBytesAhead, 0, 2);
    }
    const auto value = Codes::load(x + i);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) acc[r] = Codes::fma(widen[r](in + r * stride), value, acc[r]);
  }
  if (i == count) return;
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) {  // the input is zero beyond
    Code last[kCodes] = {};
    std::memcpy(last, in + r * stride,
                static_cast<std::size_t>(count - i + kPerCode - 1) / kPerCode * sizeof(Code));
    acc[r] = Codes::fma(widen[r](last), Codes::load(x + i), acc[r]);
  }
}

// Scales and zero points of the groups [first, first + count) of a row.
template <class Codes>
void load_row_groups(const LinearPart& part, std::int64_t row, std::int64_t first, std::int64_t count,
                     float* scales, float* zero_points) {
  const StoredLinear& stored = part.stored;
  const bool halves = part.group_size != 0 && stored.zero_point.empty() &&
                      stored.scale.dtype() == DType::kBF16 && stored.scheme.strategy == Strategy::kGroup;
  const std::int64_t begin =
      part.group_size ? row * ((stored.columns + part.group_size - 1) / part.group_size) + first : 0;
  if (part.format == RowFormat::kNf4) {
    std::copy_n(reinterpret_cast<const float*>(stored.absmax.bytes().data()) + begin, count, scales);
  } else if (halves) {
    const auto* values = reinterpret_cast<const bf16*>(stored.scale.bytes().data()) + begin;
    for (std::int64_t g = 0; g < count; ++g) scales[g] = bf16_to_float(values[g]);
  } else {
    return part.load_groups(row, first, count, scales, zero_points);
  }
  std::fill_n(zero_points, count, 0.0f);
}

// products[r] = columns [first, first + columns) of row `row + r` times x, at most 512 of them.
template <class Codes, int R>
void dot_stored_rows(const LinearPart& part, std::int64_t row, std::int64_t first, std::int64_t columns,
                     const float* x, float* products) {
  typename Codes::Vec acc[R];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) acc[r] = Codes::zero();
  if (part.format == RowFormat::kBF16) {
    const WidenBf16<Codes> widen[R] = {};
    fma_rows<Codes, 1>(widen, reinterpret_cast<const bf16*>(part.row(row)) + first, part.row_bytes / 2,
                       columns, x, acc);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) products[r] = Codes::sum(acc[r]);
    return;
  }
  constexpr std::int64_t kMaxGroups = 512 / 32 + 1;
  float scales[R][kMaxGroups], zero_points[R][kMaxGroups];
  const std::int64_t size = part.group_size ? part.group_size : first + columns;
  const std::int64_t begin_group = first / size, end_group = (first + columns + size - 1) / size;
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
    load_row_groups<Codes>(part, row + r, begin_group, end_group - begin_group, scales[r], zero_points[r]);
  const auto* in = reinterpret_cast<const std::uint8_t*>(part.row(row));
  for (std::int64_t g = begin_group; g < end_group; ++g) {
    const std::int64_t begin = std::max(first, g * size), end = std::min((g + 1) * size, first + columns);
    const float* values = x + begin - first;
    if (part.format == RowFormat::kInt8 || part.format == RowFormat::kInt8Packed) {
      const bool offset = part.format == RowFormat::kInt8Packed;
      WidenBytes<Codes> widen[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
        widen[r].set(zero_points[r][g - begin_group] + (offset ? 128.0f : 0.0f), scales[r][g - begin_group]);
      if (offset)
        fma_rows<Codes, 1>(widen, in + begin, part.row_bytes, end - begin, values, acc);
      else
        fma_rows<Codes, 1>(widen, reinterpret_cast<const std::int8_t*>(in) + begin, part.row_bytes,
                           end - begin, values, acc);
    } else {
      typename Codes::Nibbles widen[R];
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r)
        widen[r].set(part.format == RowFormat::kNf4, part.levels.data(), zero_points[r][g - begin_group],
                     scales[r][g - begin_group]);
      fma_rows<Codes, 2>(widen, in + begin / 2, part.row_bytes, end - begin, values, acc);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) products[r] = Codes::sum(acc[r]);
}

}  // namespace bise
