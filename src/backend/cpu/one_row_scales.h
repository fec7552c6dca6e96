// The scales of a block of NF4 codes of one_row_amx.h. Include inside a region of
// target("avx512f,avx512bw,avx512dq,avx512vl").
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/cpu/one_row_amx.h"

namespace bise {

namespace {

__mmask16 first_lanes_of(std::int64_t count) {
  return static_cast<__mmask16>((1u << std::clamp<std::int64_t>(count, 0, 16)) - 1u);
}

// The groups that the block's columns of half h begin in: row r's are at scales + r * stride.
inline void load_groups(const OneRowBlock& block, int h, OneRowScales& out) {
  const LinearPart& part = *block.part[h];
  const StoredLinear& stored = part.stored;
  const float* data = stored.absmax.data<float>();
  const std::int64_t size = part.group_size, groups = (stored.columns + size - 1) / size;
  const std::int64_t first = block.first_column / size;
  const std::int64_t count = (block.first_column + block.columns + size - 1) / size - first;
  const std::int64_t begin = block.row[h] * groups + first;
  // Rows of which all groups are wanted lie one after the other. The step at a row's end may look at one
  // more, of the row that follows, for columns that are zero in the input.
  const std::int64_t lines = count == groups ? 1 : OneRowBlock::kRows;
  const std::int64_t length = count == groups ? OneRowBlock::kRows * groups : count;
  out.stride[h] = count == groups ? groups : (count + 1 + 15) / 16 * 16;
  for (std::int64_t r = 0; r < lines; ++r) {
    float* row = out.scales[h] + r * out.stride[h];
    for (std::int64_t g = 0; g < length + 1; g += 16)
      _mm512_storeu_ps(row + g,
                       _mm512_maskz_loadu_ps(first_lanes_of(length - g), data + begin + r * groups + g));
  }
}

}  // namespace

}  // namespace bise
