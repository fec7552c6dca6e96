// The scales and zero points of a block of one_row_amx.h as float32. Include inside a region of
// target("avx512f,avx512bw,avx512dq,avx512vl").
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/cpu/one_row_amx.h"
#include "tensor/float_types.h"

namespace bise {

namespace {

// Sixteen floats from element `index` of scales of a type; those beyond the mask are 0.
__m512 load_scales(DType dtype, const std::byte* scales, std::int64_t index, __mmask16 mask) {
  if (dtype == DType::kF32) return _mm512_maskz_loadu_ps(mask, scales + index * 4);
  const __m256i halves = _mm256_maskz_loadu_epi16(mask, scales + index * 2);
  if (dtype == DType::kF16) return _mm512_cvtph_ps(halves);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

__mmask16 first_lanes_of(std::int64_t count) {
  return static_cast<__mmask16>((1u << std::clamp<std::int64_t>(count, 0, 16)) - 1u);
}

// The groups that the block's columns of half h begin in: row r's are at scales + r * stride.
inline void load_groups(const OneRowBlock& block, int h, OneRowScales& out) {
  const LinearPart& part = *block.part[h];
  const StoredLinear& stored = part.stored;
  const Tensor& scales = part.format == RowFormat::kNf4 ? stored.absmax : stored.scale;
  const std::byte* data = scales.bytes().data();
  const std::int64_t size = part.group_size, groups = (stored.columns + size - 1) / size;
  const std::int64_t first = block.first_column / size;
  const std::int64_t count = (block.first_column + block.columns + size - 1) / size - first;
  const std::int64_t begin = block.row[h] * groups + first;
  const bool whole_rows = count == groups && stored.zero_point.empty();
  // Rows of which all groups are wanted lie one after the other. The step at a row's end may look at up to
  // three more, of the row that follows, for columns that are zero in the input.
  const std::int64_t lines = whole_rows ? 1 : OneRowBlock::kRows;
  const std::int64_t length = whole_rows ? OneRowBlock::kRows * groups : count;
  out.stride[h] = whole_rows ? groups : (count + 3 + 15) / 16 * 16;
  for (std::int64_t r = 0; r < lines; ++r) {
    float* row = out.scales[h] + r * out.stride[h];
    for (std::int64_t g = 0; g < length + 3; g += 16)
      _mm512_storeu_ps(row + g,
                       load_scales(scales.dtype(), data, begin + r * groups + g, first_lanes_of(length - g)));
  }
  if (stored.zero_point.empty()) return;
  // Eight rows share a word; stored as the zero point + 8.
  const std::uint32_t* words = stored.zero_point.data<std::uint32_t>();
  for (std::int64_t r = 0; r < lines; ++r) {
    const std::int64_t row = block.row[h] + r;
    const __m128i shift = _mm_cvtsi64_si128(row % 8 * 4);
    for (std::int64_t g = 0; g < length; g += 16) {
      const __m512i packed =
          _mm512_maskz_loadu_epi32(first_lanes_of(length - g), words + row / 8 * groups + first + g);
      const __m512i codes = _mm512_and_si512(_mm512_srl_epi32(packed, shift), _mm512_set1_epi32(15));
      _mm512_storeu_ps(out.zero_points[h] + r * out.stride[h] + g,
                       _mm512_cvtepi32_ps(_mm512_sub_epi32(codes, _mm512_set1_epi32(8))));
    }
  }
}

}  // namespace

}  // namespace bise
