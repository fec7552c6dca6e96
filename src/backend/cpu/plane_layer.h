// A linear layer whose integer codes are multiplied with planes of the input, sixteen rows of the weight at a
// time, and one row of the input for all kernels. Include inside a region of
// target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni").
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/cpu/gate_kernel.h"
#include "backend/cpu/linear_driver.h"
#include "backend/cpu/plane_input.h"
#include "backend/cpu/plane_one_row.h"
#include "backend/cpu/plane_scales.h"
#include "backend/cpu/simd_avx512.h"
#include "backend/cpu/weight_streams.h"

namespace bise {
namespace {

// With more rows than these memory is not what limits.
constexpr std::int64_t kFarApartRows = 8;

// What all threads share.
struct PlaneLayer {
  const CpuLinearInput& in;
  const CpuLinearWeight& weight;
  CpuMatrix* out;         // one of the two
  CpuLinearInput* gated;  // is given

  std::int64_t outputs() const { return gated ? weight.rows() / 2 : weight.rows(); }
  // Of a unit.
  std::int64_t unit_outputs() const { return gated ? WeightStreams::kLanes / 2 : WeightStreams::kLanes; }
  RowFormat format() const { return weight.parts().front().format; }
  bool nibbles() const { return format() == RowFormat::kInt4Packed; }
  // Stored codes are signed, or unsigned with an offset, which flipping the first bit of each code adds or
  // takes away.
  bool is_signed() const { return format() == RowFormat::kInt8; }
  // What makes signed codes unsigned.
  std::uint8_t flip() const { return is_signed() ? 0x80 : 0; }
  std::int32_t offset() const { return nibbles() ? 8 : 128; }
  std::int64_t steps() const { return (in.columns() + kPlaneColumns - 1) / kPlaneColumns; }

  // A gated row whose values stand in the output's staging.
  void encode_gated(std::int64_t row) const { gated->encode_row(row, gated->staging(row)); }
};

// The sixteen rows of the weight that come next in one thread's share of the output, and where their sums go.
class PlaneUnit {
 public:
  // Of the output's columns [begin, end).
  PlaneUnit(const PlaneLayer& layer, std::int64_t begin, std::int64_t end, ZeroPointForm form)
      : layer_(layer),
        streams_(layer.weight, layer.gated != nullptr, begin, end, layer.in.rows() <= kFarApartRows),
        scales_(layer.weight, form) {
    if (!done()) find_lanes();
  }

  bool done() const { return streams_.done(); }
  void advance() {
    streams_.advance();
    if (!done()) find_lanes();
  }
  const std::array<const std::byte*, WeightStreams::kLanes>& codes() const { return streams_.codes(); }
  bool has_offsets() const { return scales_.has_offsets(); }
  const PlaneScales& load_scales(std::int64_t first, std::int64_t count) {
    return scales_.load(streams_, first, count);
  }

  // A row's sums, a lane for each row of the unit.
  void finish(std::int64_t row, __m512 sums) const {
    if (layer_.weight.row_scales()) sums = _mm512_mul_ps(sums, factors_);
    if (layer_.weight.bias()) sums = _mm512_add_ps(sums, bias_);
    if (layer_.gated)
      sums = gate<SimdAvx512>(sums, _mm512_shuffle_f32x4(sums, sums, 0x4e));  // up from the upper half
    float* to = layer_.gated ? layer_.gated->staging(row) : layer_.out->row(row);
    if (streams_.column_step() == 1)
      _mm512_mask_storeu_ps(to + streams_.first_column(), inside_, sums);
    else
      _mm512_mask_i32scatter_ps(to, inside_, columns_, sums, 4);
  }

 private:
  // Where the lanes are, of the weight and of the output.
  void find_lanes() {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i output = layer_.gated ? _mm512_and_si512(lanes, _mm512_set1_epi32(7)) : lanes;
    columns_ = _mm512_add_epi32(
        _mm512_set1_epi32(static_cast<int>(streams_.first_column())),
        _mm512_mullo_epi32(output, _mm512_set1_epi32(static_cast<int>(streams_.column_step()))));
    inside_ = streams_.inside();
    auto all = inside_;
    __m512i rows = columns_;
    if (layer_.gated) {
      all = static_cast<__mmask16>(all | all << 8);
      rows = _mm512_mask_add_epi32(rows, 0xff00, rows, _mm512_set1_epi32(static_cast<int>(layer_.outputs())));
    }
    const float *factors = layer_.weight.row_scales(), *bias = layer_.weight.bias();
    if (factors) factors_ = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), all, rows, factors, 4);
    if (bias) bias_ = _mm512_mask_i32gather_ps(_mm512_setzero_ps(), all, rows, bias, 4);
  }

  const PlaneLayer& layer_;
  WeightStreams streams_;
  PlaneScaleLoader scales_;
  __m512i columns_{};
  __mmask16 inside_ = 0;
  __m512 factors_{}, bias_{};
};

// One row of the input times all of `unit`'s rows. `memory`: of one thread. Every thread splits the row for
// itself: that takes less than to wait for another.
template <bool kNibbles, int kSpan>
void multiply_one_row(const PlaneLayer& layer, PlaneUnit& unit, std::byte* memory) {
  constexpr PlaneOrder kOrder = kNibbles ? PlaneOrder::kNibbles128 : PlaneOrder::kNatural;
  constexpr int kSpans = kPlaneColumns / kSpan;
  const PlaneSplitter row(layer.in, 0);
  std::byte* planes = memory;
  auto* sums = reinterpret_cast<std::int32_t*>(planes + layer.steps() * kPlaneRowStep);
  auto* factors = reinterpret_cast<float*>(sums + layer.steps() * kSpans);
  for (std::int64_t step = 0; step < layer.steps(); ++step) {
    const Planes split = row.split<kOrder, kSpan>(step * kPlaneColumns);
    std::byte* to = planes + step * kPlaneRowStep;
    for (int half = 0; half < 2; ++half) {
      _mm512_store_si512(to + 64 * half, split.high[half]);
      _mm512_store_si512(to + 128 + 64 * half, split.low[half]);
    }
    for (int s = 0; s < kSpans; ++s) {
      const std::int32_t sum = sum_of_span<kSpan>(split, s);
      sums[step * kSpans + s] = unit.has_offsets() ? sum : sum * layer.offset();
      factors[step * kSpans + s] = split.scales[s * (kSpan / 32)];
    }
  }
  const std::int64_t columns = layer.in.columns();
  for (; !unit.done(); unit.advance()) {
    const PlaneDot<kNibbles, kSpan> dot(unit.codes(), layer.flip());
    __m512 totals = _mm512_setzero_ps();
    for (std::int64_t first = 0; first < columns; first += PlaneScales::kBlockColumns) {
      const std::int64_t count = std::min(PlaneScales::kBlockColumns, columns - first);
      totals =
          dot.add_block(first, count, planes + first / kPlaneColumns * kPlaneRowStep, sums + first / kSpan,
                        factors + first / kSpan, unit.load_scales(first, count), unit.has_offsets(), totals);
    }
    unit.finish(0, totals);
  }
}

}  // namespace
}  // namespace bise
