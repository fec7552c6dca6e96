// Widening of stored weights to float32 for the instruction sets without tiles. A kernel template (simd.h):
// `Codes` adds to Simd what differs between the instruction sets. Loops without branches are vectorized by
// the compiler for the target region they stand in; templates over `Codes`, so that each region has its own.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "backend/cpu/linear_weight.h"

namespace bise {

// float32 from e4m3 without a table: normals move the exponent's bias by 120, subnormals are multiples of
// 2^-9, and NaN (0x7f) stays NaN.
[[gnu::always_inline]] inline float widen_e4m3(std::uint8_t code) {
  const std::uint32_t magnitude = code & 0x7fu, sign = (code & 0x80u) << 24;
  const float subnormal = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-9f;
  const std::uint32_t normal = magnitude == 0x7fu ? 0x7fc00000u : (magnitude << 20) + (120u << 23);
  return std::bit_cast<float>((magnitude < 8 ? std::bit_cast<std::uint32_t>(subnormal) : normal) | sign);
}

// Calls widen(begin, end, scale, zero_point) for each group of columns within [first, first + columns).
template <class Widen>
void for_each_group(const LinearPart& part, std::int64_t row, std::int64_t first, std::int64_t columns,
                    Widen widen) {
  const std::int64_t size = part.group_size ? part.group_size : first + columns;
  for (std::int64_t begin = first; begin < first + columns;) {
    const std::int64_t group = begin / size, end = std::min((group + 1) * size, first + columns);
    float scale, zero_point;
    part.load_groups(row, group, 1, &scale, &zero_point);
    widen(begin, end, scale, zero_point);
    begin = end;
  }
}

template <class Codes, class Code>
void widen_codes(const Code* __restrict codes, std::int64_t count, float zero_point, float scale,
                 float* __restrict out) {
  for (std::int64_t i = 0; i < count; ++i) out[i] = (static_cast<float>(codes[i]) - zero_point) * scale;
}

// Columns [first, first + columns) of row `row` of `part`; scales of whole rows are left out.
template <class Codes>
void unpack_floats(const LinearPart& part, std::int64_t row, std::int64_t first, std::int64_t columns,
                   float* __restrict out) {
  const std::byte* in = part.row(row);
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(in);
  switch (part.format) {
    case RowFormat::kF32: std::memcpy(out, in + first * 4, static_cast<std::size_t>(columns) * 4); return;
    case RowFormat::kBF16: {
      const auto* __restrict values = reinterpret_cast<const std::uint16_t*>(in) + first;
      for (std::int64_t i = 0; i < columns; ++i)
        out[i] = std::bit_cast<float>(static_cast<std::uint32_t>(values[i]) << 16);
      return;
    }
    case RowFormat::kF16:
      return Codes::widen_f16(reinterpret_cast<const std::uint16_t*>(in) + first, columns, out);
    case RowFormat::kInt8:
      return for_each_group(part, row, first, columns, [&](auto begin, auto end, float scale, float zero) {
        widen_codes<Codes>(reinterpret_cast<const std::int8_t*>(in) + begin, end - begin, zero, scale,
                           out + begin - first);
      });
    case RowFormat::kInt8Packed:  // offset by 128
      return for_each_group(part, row, first, columns, [&](auto begin, auto end, float scale, float zero) {
        widen_codes<Codes>(bytes + begin, end - begin, zero + 128.0f, scale, out + begin - first);
      });
    case RowFormat::kE4M3:
      return for_each_group(part, row, first, columns, [&](auto begin, auto end, float scale, float) {
        const std::uint8_t* __restrict codes = bytes + begin;
        float* __restrict values = out + begin - first;
        for (std::int64_t i = 0; i < end - begin; ++i) values[i] = widen_e4m3(codes[i]) * scale;
      });
    case RowFormat::kInt4Packed:
    case RowFormat::kNf4:
      return for_each_group(part, row, first, columns, [&](auto begin, auto end, float scale, float zero) {
        Codes::widen_nibbles(bytes + begin / 2, end - begin, part.format == RowFormat::kNf4,
                             part.levels.data(), zero, scale, out + begin - first);
      });
    case RowFormat::kOther: return part.dequantize(row, first, columns, out);
  }
}

}  // namespace bise
