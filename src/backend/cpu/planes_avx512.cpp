#include "backend/cpu/planes_avx512.h"

// g++ 12 warns of the unset registers in its own AVX-512 intrinsics (gcc bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>

#include "backend/cpu/linear_scratch.h"
#include "backend/cpu/transpose_avx512.h"
#include "backend/cpu/weight_streams.h"

// What is included above keeps the baseline instruction set, so that no shared inline function is compiled
// for more than the processor has.
#pragma GCC target( \
    "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,prefer-vector-width=512")
#include "backend/cpu/linear_driver.h"
#include "backend/cpu/plane_input.h"
#include "backend/cpu/plane_layer.h"
#include "backend/cpu/plane_rows.h"

namespace bise {
namespace {

// The output's columns of one of the units that a thread multiplies together.
UnitRange columns_of_unit(const PlaneLayer& layer, int thread, int threads, std::int64_t unit) {
  UnitRange mine(layer.outputs(), thread, threads);
  if (layer.in.rows() == 1) {  // one unit takes all
    if (unit > 0) mine.begin = mine.end;
    return mine;
  }
  const std::int64_t outputs = layer.unit_outputs(), units = (mine.end - mine.begin + outputs - 1) / outputs;
  const std::int64_t middle = std::min(mine.end, mine.begin + (units + 1) / 2 * outputs);
  (unit == 0 ? mine.end : mine.begin) = middle;
  return mine;
}

template <bool kNibbles, int kSpan>
class PlaneWorker {
 public:
  PlaneWorker(const PlaneLayer& layer, LinearScratch::Buffers& buffers, int thread)
      : layer_(layer),
        buffers_(buffers),
        scratch_(buffers.threads[static_cast<std::size_t>(thread)]),
        thread_(thread),
        threads_(static_cast<int>(buffers.threads.size())),
        planes_(layer.in.is_int8() ? 1 : 2) {}

  void run() {
    const std::int64_t rows = layer_.in.rows();
    if (rows == 1) {
      PlaneUnit unit = unit_at(0);
      return multiply_one_row<kNibbles, kSpan>(layer_, unit, scratch_.packed.data());
    }
    const std::int64_t most = most_rows(), chunks = (rows + most - 1) / most;
    const std::int64_t chunk =
        std::min(most, ((rows + chunks - 1) / chunks + kTileTokens - 1) / kTileTokens * kTileTokens);
    for (std::int64_t first = 0; first < rows; first += chunk) {
      const std::int64_t count = std::min(chunk, rows - first);
      if (first > 0) buffers_.barrier.wait();
      pack(first, count);
      buffers_.barrier.wait();
      PlaneUnit units[kUnitsTogether] = {unit_at(0), unit_at(1)};
      while (!units[0].done()) {
        multiply_units(units, first, count);
        for (PlaneUnit& unit : units)
          if (!unit.done()) unit.advance();
      }
    }
    if (!layer_.gated) return;
    buffers_.barrier.wait();
    const UnitRange share(rows, thread_, threads_);
    for (std::int64_t row = share.begin; row < share.end; ++row) layer_.encode_gated(row);
  }

 private:
  static constexpr int kSpans = kPlaneColumns / kSpan;  // of 128 columns

  PlaneUnit unit_at(std::int64_t unit) const {
    const UnitRange columns = columns_of_unit(layer_, thread_, threads_, unit);
    return PlaneUnit(layer_, columns.begin, columns.end, {});
  }
  std::int64_t row_bytes() const { return PlaneTile::row_bytes(layer_.steps(), planes_, kSpan); }
  // Rows whose planes fit the packing memory and whose sums fit theirs.
  std::int64_t most_rows() const {
    const std::int64_t fit = LinearScratch::Buffers::kPackedBytes / row_bytes() / kTileTokens * kTileTokens;
    return std::min(CpuLinearInput::kChunkRows, fit);
  }
  // Of the rows [row, row + count) of a chunk.
  PlaneTile tile_at(std::int64_t row, std::int64_t count) const {
    return {buffers_.threads[0].packed.data() + row * row_bytes(), count, layer_.steps(), planes_, kSpan};
  }

  void pack(std::int64_t first, std::int64_t count);
  void multiply_units(PlaneUnit (&units)[kUnitsTogether], std::int64_t first_row, std::int64_t count);

  const PlaneLayer& layer_;
  LinearScratch::Buffers& buffers_;
  LinearScratch::Buffers::PerThread& scratch_;
  const int thread_, threads_;
  const std::int64_t planes_;
};

// This thread's part of a chunk's tiles, or of the columns where there is one tile.
template <bool kNibbles, int kSpan>
void PlaneWorker<kNibbles, kSpan>::pack(std::int64_t first, std::int64_t count) {
  const std::int64_t tiles = (count + kTileTokens - 1) / kTileTokens, steps = layer_.steps();
  const UnitRange mine(tiles * steps, thread_, threads_);
  std::array<std::optional<PlaneSplitter>, kTileTokens> splitters;
  const bool offsets = PlaneScaleLoader(layer_.weight, {}).has_offsets();
  for (std::int64_t at = mine.begin; at < mine.end; ++at) {
    const std::int64_t row = at / steps * kTileTokens, rows = std::min(kTileTokens, count - row);
    if (at == mine.begin || at % steps == 0)
      for (std::int64_t t = 0; t < rows; ++t)
        splitters[static_cast<std::size_t>(t)].emplace(layer_.in, first + row + t);
    pack_tile<kNibbles, kSpan>(splitters.data(), rows, at % steps * kPlaneColumns,
                               offsets ? 1 : layer_.offset(), tile_at(row, rows));
  }
}

template <bool kNibbles, int kSpan>
void PlaneWorker<kNibbles, kSpan>::multiply_units(PlaneUnit (&units)[kUnitsTogether], std::int64_t first_row,
                                                  std::int64_t count) {
  const std::int64_t columns = layer_.in.columns();
  float* totals = scratch_.sums.data();
  std::fill_n(totals, padded_tokens(count) * 16 * kUnitsTogether, 0.0f);
  const PlaneScales* scales[kUnitsTogether] = {};
  for (std::int64_t first = 0; first < columns; first += kPanelColumns) {
    const std::int64_t of_panel = std::min(kPanelColumns, columns - first), step = first / kPlaneColumns;
    const std::int64_t in_block = first % PlaneScales::kBlockColumns;
    PlanePanel panel{};
    panel.spans = (of_panel + kSpan - 1) / kSpan;
    for (std::int64_t u = 0; u < kUnitsTogether; ++u) {
      PlaneUnit& unit = units[units[u].done() ? 0 : u];
      if (in_block == 0 && !units[u].done())
        scales[u] = &unit.load_scales(first, std::min(PlaneScales::kBlockColumns, columns - first));
      const PlaneScales& loaded = *(scales[u] ? scales[u] : scales[0]);
      std::byte* codes = scratch_.panel.data() + u * kPanelColumns / 4 * kQuadBytes;
      if (!units[u].done()) unpack_quads<kNibbles>(unit.codes(), layer_.flip(), first, of_panel, codes);
      panel.codes[u] = codes;
      panel.scales[u] = loaded.scales + in_block / kSpan;
      panel.offsets[u] = unit.has_offsets() ? loaded.offsets + in_block / kSpan : nullptr;
    }
    for (std::int64_t row = 0; row < count; row += kTileTokens) {
      PlaneTile tile = tile_at(row, std::min(kTileTokens, count - row));
      tile.digits += step * tile.planes * tile.plane_bytes();
      tile.sums += step * kSpans * tile.tokens;
      tile.factors += step * kSpans * tile.tokens;
      float* to = totals + row * 16 * kUnitsTogether;
      switch (tile.tokens) {
        case 4: add_panel<4>(panel, tile, kSpan / 4, to); break;
        case 8: add_panel<8>(panel, tile, kSpan / 4, to); break;
        default: add_panel<12>(panel, tile, kSpan / 4, to);
      }
    }
  }
  for (std::int64_t row = 0; row < count; ++row) {
    const std::int64_t first = row / kTileTokens * kTileTokens;
    const float* sums = totals + 16 * (first * kUnitsTogether + row - first);
    for (PlaneUnit& unit : units) {
      if (!unit.done()) unit.finish(first_row + row, _mm512_load_ps(sums));
      sums += 16 * padded_tokens(std::min(kTileTokens, count - first));
    }
  }
}

}  // namespace

void avx512_planes(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                   const CpuLinearWeight& weight, CpuMatrix* out, CpuLinearInput* gated) {
  const PlaneLayer layer{in, weight, out, gated};
  const auto run = [&]<bool kNibbles, int kSpan>() {
    const auto body = [&](int thread) { PlaneWorker<kNibbles, kSpan>(layer, buffers, thread).run(); };
    pool.run(std::ref(body));  // by reference: a std::function of all that is captured would allocate
  };
  const auto run_span = [&]<bool kNibbles>() {
    switch (weight.plane_span()) {
      case 32: return run.template operator()<kNibbles, 32>();
      case 64: return run.template operator()<kNibbles, 64>();
      default: return run.template operator()<kNibbles, 128>();
    }
  };
  layer.nibbles() ? run_span.template operator()<true>() : run_span.template operator()<false>();
  if (gated && in.rows() == 1) layer.encode_gated(0);
}

}  // namespace bise
