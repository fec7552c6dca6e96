// Scales and zero points of sixteen rows of a weight, a vector for each span of columns. Include inside a
// region of target("avx512f,avx512bw,avx512dq,avx512vl").
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/cpu/linear_weight.h"
#include "backend/cpu/transpose_avx512.h"
#include "backend/cpu/weight_streams.h"

namespace bise {
namespace {

// Of a block of columns.
struct PlaneScales {
  static constexpr std::int64_t kBlockColumns = 2048, kMaxSpans = kBlockColumns / 32;
  alignas(64) float scales[kMaxSpans][WeightStreams::kLanes];
  alignas(64) std::int32_t offsets[kMaxSpans][WeightStreams::kLanes];  // zero points
};

// A zero point is held as (stored - offset) * factor, where `stored` is unsigned as the codes are.
struct ZeroPointForm {
  std::int32_t offset = 0, factor = 1;
};

class PlaneScaleLoader {
 public:
  PlaneScaleLoader(const CpuLinearWeight& weight, ZeroPointForm form)
      : form_(form),
        span_(weight.plane_span()),
        size_(weight.parts().front().group_size),
        groups_(size_ ? (weight.columns() + size_ - 1) / size_ : 1),
        type_(weight.parts().front().stored.scale.dtype()),
        bits_(weight.parts().front().stored.scheme.num_bits) {
    if (size_ == 0) size_ = (weight.columns() + span_ - 1) / span_ * span_;
    of_rows_ = weight.parts().front().group_size == 0;
    const Tensor& zero_point = weight.parts().front().stored.zero_point;
    packed_offsets_ = !zero_point.empty() && zero_point.dtype() == DType::kI32;
    byte_offsets_ = !zero_point.empty() && !packed_offsets_;
    if (of_rows_) std::fill_n(out_.scales[0], PlaneScales::kMaxSpans * WeightStreams::kLanes, 1.0f);
  }

  bool has_offsets() const { return packed_offsets_ || byte_offsets_; }

  // Of the columns [first, first + count) of the rows that the streams have reached, at most a block.
  const PlaneScales& load(const WeightStreams& streams, std::int64_t first, std::int64_t count) {
    first_ = first;
    end_ = first + count;
    const std::int64_t first_group = first / size_, end_group = (end_ + size_ - 1) / size_;
    for (std::int64_t group = first_group; group < end_group; group += 16) {
      const std::int64_t many = std::min<std::int64_t>(16, end_group - group);
      if (!of_rows_)
        type_ == DType::kF32 ? load_wide(streams, group, many) : load_halves(streams, group, many);
      if (has_offsets()) load_offsets(streams, group, many);
    }
    if (of_rows_) return out_;
    // Up to a multiple of 128 columns the input is zero, which these must not turn into no number.
    const std::int64_t spans = (count + span_ - 1) / span_, step = 128 / span_;
    for (std::int64_t span = spans; span < (spans + step - 1) / step * step; ++span)
      _mm512_store_ps(out_.scales[span], _mm512_setzero_ps());
    return out_;
  }

 private:
  static __mmask16 first_lanes_of(std::int64_t count) { return static_cast<__mmask16>((1u << count) - 1u); }

  // A group's vector goes to all of its spans.
  void put(std::int64_t group, __m512i values, void* of_spans) const {
    const std::int64_t begin = std::max(group * size_, first_), end = std::min((group + 1) * size_, end_);
    auto* to = static_cast<std::byte*>(of_spans) + (begin - first_) / span_ * 64;
    for (std::int64_t c = begin; c < end; c += span_, to += 64) _mm512_store_si512(to, values);
  }

  const std::byte* scales_of(const WeightStreams& streams, int lane, std::int64_t group) const {
    return streams.part(lane).stored.scale.bytes().data() +
           (streams.row(lane) * groups_ + group) * (type_ == DType::kF32 ? 4 : 2);
  }

  void load_wide(const WeightStreams& streams, std::int64_t group, std::int64_t count) {
    __m512i rows[16];
    for (int r = 0; r < 16; ++r)
      rows[r] = _mm512_maskz_loadu_epi32(first_lanes_of(count), scales_of(streams, r, group));
    transpose_16x16(rows);
    for (int g = 0; g < count; ++g) put(group + g, rows[g], out_.scales);
  }

  // Two groups together are the four-byte elements of a transposition: rows r and r + 4 in one vector.
  void load_halves(const WeightStreams& streams, std::int64_t group, std::int64_t count) {
    const __mmask16 mask = first_lanes_of(count);
    const auto row = [&](int r) { return _mm256_maskz_loadu_epi16(mask, scales_of(streams, r, group)); };
    __m512i quads[2][4];
    for (int half = 0; half < 2; ++half) {
      __m512i(&quad)[4] = quads[half];
      for (int r = 0; r < 4; ++r)
        quad[r] = _mm512_inserti64x4(_mm512_castsi256_si512(row(8 * half + r)), row(8 * half + r + 4), 1);
      const __m512i low01 = _mm512_unpacklo_epi32(quad[0], quad[1]);
      const __m512i low23 = _mm512_unpacklo_epi32(quad[2], quad[3]);
      const __m512i high01 = _mm512_unpackhi_epi32(quad[0], quad[1]);
      const __m512i high23 = _mm512_unpackhi_epi32(quad[2], quad[3]);
      quad[0] = _mm512_unpacklo_epi64(low01, low23);
      quad[1] = _mm512_unpackhi_epi64(low01, low23);
      quad[2] = _mm512_unpacklo_epi64(high01, high23);
      quad[3] = _mm512_unpackhi_epi64(high01, high23);
    }
    for (int pair = 0; 2 * pair < count; ++pair) {
      const __m512i both = pair < 4 ? _mm512_shuffle_i32x4(quads[0][pair], quads[1][pair], 0x88)
                                    : _mm512_shuffle_i32x4(quads[0][pair - 4], quads[1][pair - 4], 0xdd);
      put(group + 2 * pair, widen(_mm512_slli_epi32(both, 16)), out_.scales);
      if (2 * pair + 1 < count)
        put(group + 2 * pair + 1,
            widen(_mm512_and_si512(both, _mm512_set1_epi32(static_cast<int>(0xffff0000)))), out_.scales);
    }
  }

  // Scales in the upper halves of the lanes as float32.
  __m512i widen(__m512i upper) const {
    if (type_ == DType::kBF16) return upper;
    return _mm512_castps_si512(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(upper, 16))));
  }

  void load_offsets(const WeightStreams& streams, std::int64_t group, std::int64_t count) {
    const __mmask16 mask = first_lanes_of(count);
    __m512i rows[16];
    for (int r = 0; r < 16; ++r) {
      const std::byte* data = streams.part(r).stored.zero_point.bytes().data();
      const std::int64_t row = streams.row(r), rows_of_word = 32 / bits_;
      if (byte_offsets_) {
        const __m128i bytes = _mm_maskz_loadu_epi8(mask, data + row * groups_ + group);
        rows[r] = _mm512_add_epi32(_mm512_cvtepi8_epi32(bytes), _mm512_set1_epi32(1 << (bits_ - 1)));
      } else {
        const __m512i words =
            _mm512_maskz_loadu_epi32(mask, data + (row / rows_of_word * groups_ + group) * 4);
        const __m128i shift = _mm_cvtsi64_si128(row % rows_of_word * bits_);
        rows[r] = _mm512_and_si512(_mm512_srl_epi32(words, shift), _mm512_set1_epi32((1 << bits_) - 1));
      }
    }
    transpose_16x16(rows);
    for (int g = 0; g < count; ++g) {
      const __m512i shifted = _mm512_sub_epi32(rows[g], _mm512_set1_epi32(form_.offset));
      put(group + g, _mm512_mullo_epi32(shifted, _mm512_set1_epi32(form_.factor)), out_.offsets);
    }
  }

  const ZeroPointForm form_;
  std::int64_t span_, size_, groups_;
  DType type_;
  int bits_;
  bool of_rows_ = false, packed_offsets_ = false, byte_offsets_ = false;
  std::int64_t first_ = 0, end_ = 0;
  PlaneScales out_;
};

}  // namespace
}  // namespace bise
