// The dot product of one stored row of codes and one row of input, widened in registers, for the instruction
// sets without tiles. Adds in the same order as unpack_floats and dot_floats (linear_rows_kernel.h) do for
// many rows, so that both give the same bits. A kernel template (simd.h); `Codes` has, besides:
//   widen_bytes(p)                    kWidth signed or unsigned bytes as floats
//   fma_nibbles(acc, in, count, high_first, levels, zero_point, scale, x)
//                                     acc + codes times x, as widen_nibbles has their values
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "backend/cpu/linear_weight.h"
#include "tensor/float_types.h"

namespace bise {

namespace {  // each instruction set has its own copy

bool widens_in_registers(const LinearPart& part) {
  return part.format == RowFormat::kInt4Packed || part.format == RowFormat::kNf4 ||
         part.format == RowFormat::kInt8 || part.format == RowFormat::kInt8Packed;
}

}  // namespace

template <class Codes, class Code>
typename Codes::Vec fma_bytes(typename Codes::Vec acc, const Code* codes, std::int64_t count,
                              float zero_point, float scale, const float* x) {
  const auto zero = Codes::set(zero_point), factor = Codes::set(scale);
  const auto add = [&](const Code* from, const float* values) {
    acc =
        Codes::fma(Codes::mul(Codes::sub(Codes::widen_bytes(from), zero), factor), Codes::load(values), acc);
  };
  std::int64_t i = 0;
  for (; i + Codes::kWidth <= count; i += Codes::kWidth) add(codes + i, x + i);
  if (i < count) {  // the input is zero beyond
    Code last[Codes::kWidth] = {};
    std::memcpy(last, codes + i, static_cast<std::size_t>(count - i));
    add(last, x + i);
  }
  return acc;
}

// Columns [first, first + columns) of row `row` times x, at most 512 of them.
template <class Codes>
float dot_stored_row(const LinearPart& part, std::int64_t row, std::int64_t first, std::int64_t columns,
                     const float* x) {
  constexpr std::int64_t kMaxGroups = 512 / 32 + 1;
  float scales[kMaxGroups], zero_points[kMaxGroups];
  const std::int64_t size = part.group_size ? part.group_size : first + columns;
  const std::int64_t begin_group = first / size, end_group = (first + columns + size - 1) / size;
  const StoredLinear& stored = part.stored;
  const std::int64_t groups = (stored.columns + size - 1) / size;
  if (part.format == RowFormat::kNf4) {
    const float* values = stored.absmax.data<float>() + row * groups;
    for (std::int64_t g = begin_group; g < end_group; ++g) {
      scales[g - begin_group] = values[g];
      zero_points[g - begin_group] = 0;
    }
  } else if (part.group_size != 0 && stored.zero_point.empty() && stored.scale.dtype() == DType::kBF16 &&
             stored.scheme.strategy == Strategy::kGroup) {
    const bf16* values = stored.scale.data<bf16>() + row * groups;
    for (std::int64_t g = begin_group; g < end_group; ++g) {
      scales[g - begin_group] = bf16_to_float(values[g]);
      zero_points[g - begin_group] = 0;
    }
  } else {
    part.load_groups(row, begin_group, end_group - begin_group, scales, zero_points);
  }
  const std::byte* in = part.row(row);
  auto acc = Codes::zero();
  for (std::int64_t g = begin_group; g < end_group; ++g) {
    const std::int64_t begin = std::max(first, g * size), end = std::min((g + 1) * size, first + columns);
    const float scale = scales[g - begin_group], zero_point = zero_points[g - begin_group];
    const float* values = x + begin - first;
    if (part.format == RowFormat::kInt8)
      acc = fma_bytes<Codes>(acc, reinterpret_cast<const std::int8_t*>(in) + begin, end - begin, zero_point,
                             scale, values);
    else if (part.format == RowFormat::kInt8Packed)
      acc = fma_bytes<Codes>(acc, reinterpret_cast<const std::uint8_t*>(in) + begin, end - begin,
                             zero_point + 128.0f, scale, values);
    else
      acc = Codes::fma_nibbles(acc, reinterpret_cast<const std::uint8_t*>(in) + begin / 2, end - begin,
                               part.format == RowFormat::kNf4, part.levels.data(), zero_point, scale, values);
  }
  return Codes::sum(acc);
}

}  // namespace bise
