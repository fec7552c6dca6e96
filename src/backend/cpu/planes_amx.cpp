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
#include "backend/cpu/plane_layer.h"
#include "backend/cpu/plane_scales.h"
#include "backend/cpu/plane_tiles.h"

namespace bise {
namespace {

class PlaneWorker {
 public:
  PlaneWorker(const PlaneLayer& layer, LinearScratch::Buffers& buffers, int thread)
      : layer_(layer),
        buffers_(buffers),
        scratch_(buffers.threads[static_cast<std::size_t>(thread)]),
        thread_(thread),
        threads_(static_cast<int>(buffers.threads.size())),
        unit_(layer, UnitRange(layer.outputs(), thread, threads_).begin,
              UnitRange(layer.outputs(), thread, threads_).end,
              layer.in.rows() == 1 ? ZeroPointForm{} : tile_form(layer)) {}

  template <bool kNibbles, int kSpan>
  void run() {
    const std::int64_t rows = layer_.in.rows();
    if (rows == 1) return multiply_one_row<kNibbles, kSpan>(layer_, unit_, scratch_.packed.data());
    rows <= 8 ? few_rows<kNibbles, kSpan, 8>() : few_rows<kNibbles, kSpan, 16>();
    if (!layer_.gated) return;
    buffers_.barrier.wait();
    const UnitRange share(rows, thread_, threads_);
    for (std::int64_t row = share.begin; row < share.end; ++row) layer_.encode_gated(row);
  }

 private:
  static constexpr int kLanes = WeightStreams::kLanes;

  // What the zero points are with the codes as unpack_panel has them.
  static ZeroPointForm tile_form(const PlaneLayer& layer) {
    return {layer.offset(), layer.nibbles() ? kNibbleFactor : 1};
  }

  template <bool kNibbles, int kSpan, int kTokens>
  void few_rows();
  template <int kSpan, int kTokens, bool kNibbles>
  void pack(std::byte* packed, std::int64_t group_bytes);
  template <bool kNibbles, int kSpan, int kTokens, bool kOffsets>
  void multiply_unit(const std::byte* packed, std::int64_t group_bytes);

  const PlaneLayer& layer_;
  LinearScratch::Buffers& buffers_;
  LinearScratch::Buffers::PerThread& scratch_;
  const int thread_, threads_;
  PlaneUnit unit_;
};

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
  for (; !unit_.done(); unit_.advance()) {
    unit_.has_offsets() ? multiply_unit<kNibbles, kSpan, kTokens, true>(packed, group_bytes)
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
      scales = &unit_.load_scales(first, std::min(PlaneScales::kBlockColumns, columns - first));
    unpack_panel<kNibbles>(unit_.codes(),
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
      unit_.finish(row + t, _mm512_castsi512_ps(of_rows[t]));
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
  static_assert(CpuLinearInput::kFloatRows == kFewRows);
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
  if (gated && in.rows() == 1) layer.encode_gated(0);
}

}  // namespace bise
