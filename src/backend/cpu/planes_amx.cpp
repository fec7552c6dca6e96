#include "backend/cpu/planes_amx.h"

// g++ 12 warns of the unset registers in its own AVX-512 intrinsics (gcc bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>

#include "backend/cpu/amx_tiles.h"
#include "backend/cpu/linear_scratch.h"
#include "backend/cpu/transpose_avx512.h"
#include "backend/cpu/unpack_amx.h"
#include "backend/cpu/weight_streams.h"
#include "base/check.h"

// What is included above keeps the baseline instruction set, so that no shared inline function is compiled
// for more than the processor has.
#pragma GCC target( \
    "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vbmi")
#include "backend/cpu/linear_driver.h"
#include "backend/cpu/plane_input.h"
#include "backend/cpu/plane_one_row.h"
#include "backend/cpu/plane_scales.h"
#include "backend/cpu/plane_tiles.h"
#include "backend/cpu/simd_avx512.h"

namespace bise {
namespace {

// One linear layer: what all threads share.
struct PlaneLayer {
  const CpuLinearInput& in;
  const CpuLinearWeight& weight;
  CpuMatrix* out;         // one of the two
  CpuLinearInput* gated;  // is given

  std::int64_t outputs() const { return gated ? weight.rows() / 2 : weight.rows(); }
  RowFormat format() const { return weight.parts().front().format; }
  bool nibbles() const { return format() == RowFormat::kInt4Packed; }
  // Stored codes are signed, or unsigned with an offset, which flipping the first bit of each code adds or
  // takes away.
  bool is_signed() const { return format() == RowFormat::kInt8; }
  std::int32_t offset() const { return nibbles() ? 8 : 128; }
  std::int64_t steps() const { return (in.columns() + kPlaneColumns - 1) / kPlaneColumns; }
};

// With more rows than these memory is not what limits.
constexpr std::int64_t kFarApartRows = 8;

class PlaneWorker {
 public:
  PlaneWorker(const PlaneLayer& layer, LinearScratch::Buffers& buffers, int thread)
      : layer_(layer),
        buffers_(buffers),
        scratch_(buffers.threads[static_cast<std::size_t>(thread)]),
        thread_(thread),
        threads_(static_cast<int>(buffers.threads.size())),
        mine_(layer.outputs(), thread, threads_),
        streams_(layer.weight, layer.gated != nullptr, mine_.begin, mine_.end,
                 layer.in.rows() <= kFarApartRows),
        scales_(layer.weight, layer.in.rows() == 1 ? ZeroPointForm{} : tile_form(layer)) {}

  template <bool kNibbles, int kSpan>
  void run() {
    const std::int64_t rows = layer_.in.rows();
    if (rows == 1) return one_row<kNibbles, kSpan>();
    rows <= 8 ? few_rows<kNibbles, kSpan, 8>() : few_rows<kNibbles, kSpan, 16>();
    if (!layer_.gated) return;
    buffers_.barrier.wait();
    const UnitRange share(rows, thread_, threads_);
    for (std::int64_t row = share.begin; row < share.end; ++row) encode_gated(row);
  }

  // A gated row whose values stand in the output's staging.
  void encode_gated(std::int64_t row) { layer_.gated->encode_row(row, layer_.gated->staging(row)); }

 private:
  static constexpr int kLanes = WeightStreams::kLanes;

  // What the zero points are with the codes as unpack_panel has them.
  static ZeroPointForm tile_form(const PlaneLayer& layer) {
    return {layer.offset(), layer.nibbles() ? kNibbleFactor : 1};
  }

  template <bool kNibbles, int kSpan>
  void one_row();
  template <bool kNibbles, int kSpan, int kTokens>
  void few_rows();
  template <int kSpan, int kTokens, bool kNibbles>
  void pack(std::byte* packed, std::int64_t group_bytes);
  template <bool kNibbles, int kSpan, int kTokens, bool kOffsets>
  void multiply_unit(const std::byte* packed, std::int64_t group_bytes);

  // Where the unit's lanes are: of the weight and of the output.
  void begin_unit() {
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

  const PlaneLayer& layer_;
  LinearScratch::Buffers& buffers_;
  LinearScratch::Buffers::PerThread& scratch_;
  const int thread_, threads_;
  const UnitRange mine_;
  WeightStreams streams_;
  PlaneScaleLoader scales_;
  // Of the unit.
  __m512i columns_{};
  __mmask16 inside_ = 0;
  __m512 factors_{}, bias_{};
};

template <bool kNibbles, int kSpan>
void PlaneWorker::one_row() {
  constexpr PlaneOrder kOrder = kNibbles ? PlaneOrder::kNibbles128 : PlaneOrder::kNatural;
  constexpr int kSpans = kPlaneColumns / kSpan, kParts = kSpan / 32;
  // Every thread for itself: that takes less than to wait for another.
  const PlaneSplitter row(layer_.in, 0);
  std::byte* planes = scratch_.packed.data();
  auto* sums = reinterpret_cast<std::int32_t*>(planes + layer_.steps() * kPlaneRowStep);
  auto* factors = reinterpret_cast<float*>(sums + layer_.steps() * kSpans);
  for (std::int64_t step = 0; step < layer_.steps(); ++step) {
    const Planes split = row.split<kOrder, kSpan>(step * kPlaneColumns);
    std::byte* to = planes + step * kPlaneRowStep;
    for (int half = 0; half < 2; ++half) {
      _mm512_store_si512(to + 64 * half, split.high[half]);
      _mm512_store_si512(to + 128 + 64 * half, split.low[half]);
    }
    for (int s = 0; s < kSpans; ++s) {
      std::int32_t sum = 0;
      for (int i = 0; i < kParts; ++i) sum += split.sums[s * kParts + i];
      sums[step * kSpans + s] = scales_.has_offsets() ? sum : sum * layer_.offset();
      factors[step * kSpans + s] = split.scales[s * kParts];
    }
  }
  const std::int64_t columns = layer_.in.columns();
  for (; !streams_.done(); streams_.advance()) {
    begin_unit();
    const PlaneDot<kNibbles, kSpan> dot(streams_.codes(), layer_.is_signed() ? 0x80 : 0);
    __m512 totals = _mm512_setzero_ps();
    for (std::int64_t first = 0; first < columns; first += PlaneScales::kBlockColumns) {
      const std::int64_t count = std::min(PlaneScales::kBlockColumns, columns - first);
      totals = dot.add_block(first, count, planes + first / kPlaneColumns * kPlaneRowStep,
                             sums + first / kSpan, factors + first / kSpan,
                             scales_.load(streams_, first, count), scales_.has_offsets(), totals);
    }
    finish(0, totals);
  }
}

// Rows in groups of kTokens: for each its B tiles, then the sums of its spans.
template <bool kNibbles, int kSpan, int kTokens>
void PlaneWorker::few_rows() {
  const std::int64_t steps = layer_.steps(), groups = (layer_.in.rows() + kTokens - 1) / kTokens;
  const std::int64_t group_bytes = steps * (kPackedStep<kTokens, kSpan> + kPlaneColumns / kSpan * 128);
  check(groups * group_bytes <= LinearScratch::Buffers::kPackedBytes, "the planes fit the packing memory");
  std::byte* packed = buffers_.threads[0].packed.data();
  pack<kSpan, kTokens, kNibbles>(packed, group_bytes);
  buffers_.barrier.wait();
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) config.set(tile, 16, kTileRowBytes);
  load_tile_config(config);
  for (; !streams_.done(); streams_.advance()) {
    begin_unit();
    scales_.has_offsets() ? multiply_unit<kNibbles, kSpan, kTokens, true>(packed, group_bytes)
                          : multiply_unit<kNibbles, kSpan, kTokens, false>(packed, group_bytes);
  }
  release_tiles();
}

// This thread's part of the columns of all rows.
template <int kSpan, int kTokens, bool kNibbles>
void PlaneWorker::pack(std::byte* packed, std::int64_t group_bytes) {
  constexpr PlaneOrder kOrder = kNibbles ? PlaneOrder::kNibbles64 : PlaneOrder::kNatural;
  const std::int64_t rows = layer_.in.rows(), steps = layer_.steps();
  const UnitRange share(steps, thread_, threads_);
  for (std::int64_t first = 0; first < rows; first += kTokens, packed += group_bytes) {
    const std::int64_t count = std::min<std::int64_t>(kTokens, rows - first);
    std::array<std::optional<PlaneSplitter>, kTokens> splitters;
    for (std::int64_t t = 0; t < count; ++t)
      splitters[static_cast<std::size_t>(t)].emplace(layer_.in, first + t);
    auto* sums = reinterpret_cast<std::int32_t*>(packed + steps * kPackedStep<kTokens, kSpan>);
    auto* factors = reinterpret_cast<float*>(sums + steps * kPlaneColumns / kSpan * 16);
    for (std::int64_t step = share.begin; step < share.end; ++step)
      pack_planes<kTokens, kSpan, kOrder>(
          splitters.data(), count, step * kPlaneColumns, packed + step * kPackedStep<kTokens, kSpan>,
          sums + step * kPlaneColumns / kSpan * 16, factors + step * kPlaneColumns / kSpan * 16);
  }
}

template <bool kNibbles, int kSpan, int kTokens, bool kOffsets>
void PlaneWorker::multiply_unit(const std::byte* packed, std::int64_t group_bytes) {
  const std::int64_t rows = layer_.in.rows(), columns = layer_.in.columns(), steps = layer_.steps();
  alignas(64) float totals[kFewRows / kTokens][kLanes * 16];
  PlaneTiles<kTokens, kSpan, kOffsets> tiles;
  std::byte* panel = scratch_.panel.data();
  const PlaneScales* scales = nullptr;
  for (std::int64_t first = 0; first < columns; first += kPanelColumns) {
    const std::int64_t count = std::min(kPanelColumns, columns - first), step = first / kPlaneColumns;
    const std::int64_t spans = (count + kPlaneColumns - 1) / kPlaneColumns * (kPlaneColumns / kSpan);
    const std::int64_t in_block = first % PlaneScales::kBlockColumns;
    if (in_block == 0)
      scales = &scales_.load(streams_, first, std::min(PlaneScales::kBlockColumns, columns - first));
    unpack_panel<kNibbles>(streams_.codes(),
                           kNibbles             ? 0x88
                           : layer_.is_signed() ? 0
                                                : 0x80,
                           first, count, panel);
    const std::byte* group = packed;
    for (std::int64_t row = 0; row < rows; row += kTokens, group += group_bytes) {
      const auto* sums = reinterpret_cast<const std::int32_t*>(group + steps * kPackedStep<kTokens, kSpan>);
      const auto* factors = reinterpret_cast<const float*>(sums + steps * kPlaneColumns / kSpan * 16);
      tiles.add_panel(panel, group + step * kPackedStep<kTokens, kSpan>, spans,
                      scales->scales + in_block / kSpan, scales->offsets + in_block / kSpan,
                      sums + first / kSpan * 16, factors + first / kSpan * 16, first == 0,
                      totals[row / kTokens]);
    }
  }
  for (std::int64_t row = 0; row < rows; row += kTokens) {
    __m512i of_rows[16];
    for (int r = 0; r < kLanes; ++r) of_rows[r] = _mm512_load_si512(totals[row / kTokens] + 16 * r);
    transpose_16x16(of_rows);
    for (std::int64_t t = 0; t < std::min<std::int64_t>(kTokens, rows - row); ++t)
      finish(row + t, _mm512_castsi512_ps(of_rows[t]));
  }
}

template <bool kNibbles>
void run_worker(PlaneWorker& worker, int span) {
  switch (span) {
    case 32: return worker.run<kNibbles, 32>();
    case 64: return worker.run<kNibbles, 64>();
    default: return worker.run<kNibbles, 128>();
  }
}

}  // namespace

bool takes_planes(const CpuLinearInput& in, const CpuLinearWeight& weight) {
  return weight.plane_span() != 0 && !in.is_halves() && in.rows() <= kFewRows;
}

void amx_planes(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                const CpuLinearWeight& weight, CpuMatrix* out, CpuLinearInput* gated) {
  const PlaneLayer layer{in, weight, out, gated};
  const auto body = [&](int thread) {
    PlaneWorker worker(layer, buffers, thread);
    layer.nibbles() ? run_worker<true>(worker, weight.plane_span())
                    : run_worker<false>(worker, weight.plane_span());
  };
  pool.run(std::ref(body));  // by reference: a std::function of all that is captured would allocate
  if (gated && in.rows() == 1) gated->encode_row(0, gated->staging(0));
}

}  // namespace bise
