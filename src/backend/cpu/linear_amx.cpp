// Linear layers on AMX tiles: one row of input here, more in many_rows_amx.cpp; a few rows times integer codes
// that are no int8 product in planes_amx.cpp, which has its own order of sums. Else the product is computed
// transposed, C = W X^T: 16 rows of the weight are a tile as they lie in memory, and one row of X is the
// other factor as it lies in memory, so that decoding streams the mapped weights straight into tiles. Weights
// that the file does not have as tiles are widened, by one_row_amx.cpp or, where that has no kernel for them,
// a panel at a time.
//
// Columns are summed in blocks of kBlockTiles tiles: within a block in a tile's accumulators (in order of the
// columns, each output on its own), the blocks' sums in float32. That order is the same for any number of
// rows, so one row alone and 512 rows give the same bits.

// g++ 12 warns of the unset registers in its own AVX-512 intrinsics (gcc bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "backend/cpu/amx_columns.h"
#include "backend/cpu/amx_tiles.h"
#include "backend/cpu/linear_kernels.h"
#include "backend/cpu/linear_scratch.h"
#include "backend/cpu/linear_weight.h"
#include "backend/cpu/many_rows_amx.h"
#include "backend/cpu/one_row_amx.h"
#include "backend/cpu/planes_amx.h"
#include "backend/cpu/unpack_amx.h"

// What is included above keeps the baseline instruction set, so that no shared inline function is compiled
// for more than the processor has.
#pragma GCC target( \
    "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vbmi")
#include "backend/cpu/amx_epilogue.h"
#include "backend/cpu/amx_panel.h"
#include "backend/cpu/amx_units.h"

namespace bise {
namespace {

static_assert(LinearScratch::Buffers::kPanelBytes >= 2 * PanelMaker::kPanelBytes);
static_assert(LinearScratch::Buffers::kPanelBytes >= OneRowAmx::kRingBytes);

// One linear layer: what all threads share.
struct OneRow {
  const CpuLinearInput& in;
  const CpuLinearWeight& weight;
  CpuMatrix* out;         // one of the two
  CpuLinearInput* gated;  // is given
  AmxColumns columns;
  AmxUnits units;
  const std::byte* x;  // the row as the weight wants it
};

class OneRowWorker {
 public:
  OneRowWorker(const OneRow& layer, LinearScratch::Buffers& buffers, int thread)
      : layer_(layer),
        mine_(layer.units.count(), thread, static_cast<int>(buffers.threads.size())),
        sums_(buffers.threads[static_cast<std::size_t>(thread)].sums.data()),
        maker_(layer.columns, layer.weight, buffers.threads[static_cast<std::size_t>(thread)].panel.data()),
        one_row_(buffers.threads[static_cast<std::size_t>(thread)].panel.data()),
        epilogue_(layer.in, layer.weight, layer.gated) {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) config.set(tile, kTileRows, kTileRowBytes);
    // Sums and inputs have one column.
    for (const int tile : {0, 2, 6, 7}) config.set(tile, kTileRows, 4);
    load_tile_config(config);
  }
  ~OneRowWorker() { release_tiles(); }
  OneRowWorker(const OneRowWorker&) = delete;
  OneRowWorker& operator=(const OneRowWorker&) = delete;

  void run() {
    if (mine_.begin == mine_.end) return;
    Place place{mine_.begin, 0}, next = place;
    for (bool more = true; more; place = next) {
      more = advance(next);
      layer_.weight.integer() ? multiply<true>(place, more ? &next : nullptr)
                              : multiply<false>(place, more ? &next : nullptr);
    }
    finish();
  }

 private:
  struct Place {
    std::int64_t unit, block;
  };
  // To the next block of the columns or the next unit; false at the end.
  bool advance(Place& place) const {
    if (++place.block < layer_.columns.blocks()) return true;
    place.block = 0;
    return ++place.unit < mine_.end;
  }
  const std::byte* x_of(std::int64_t block) const { return layer_.x + block * kBlockBytes; }

  bool as_block(const Place& place, OneRowBlock& out) const;
  void find_block(const Place& place);
  template <bool kInteger>
  void multiply(const Place& place, const Place* next);
  template <bool kInteger>
  void multiply_source(const TileSource& weight, const std::byte* x, std::int64_t tiles);
  template <bool kInteger>
  void multiply_panels(const Place& place);
  void finish();

  const OneRow& layer_;
  const UnitRange mine_;
  float* const sums_;
  PanelMaker maker_;
  OneRowAmx one_row_;  // uses the panels' memory
  const AmxEpilogue epilogue_;
  // The products of the unit before: they are finished when the next has been multiplied, so that nothing
  // waits for them.
  Products done_;
  const float* products_ = nullptr;
  alignas(64) float memory_[2][2][kTileRows];
  int turn_ = 0;
  // The block of this call and of the next as OneRowAmx takes them.
  struct {
    OneRowBlock block;
    OneRowKind kind = OneRowKind::kNone;
    bool found = false;
  } blocks_[2];
};

// The unit's rows as OneRowAmx takes them; false where they are not whole tiles of one order.
bool OneRowWorker::as_block(const Place& place, OneRowBlock& out) const {
  const CpuLinearWeight& weight = layer_.weight;
  const Unit unit = layer_.units.at(place.unit);
  if (weight.integer() || unit.count[0] != kTileRows || unit.count[1] != kTileRows) return false;
  for (int h = 0; h < 2; ++h) {
    out.part[h] = &weight.part_of(unit.row[h]);
    out.row[h] = unit.row[h] - out.part[h]->first_row;
    const bool nibbles =
        out.part[h]->format == RowFormat::kInt4Packed || out.part[h]->format == RowFormat::kNf4;
    if (nibbles != weight.nibbles()) return false;
  }
  out.first_column = place.block * layer_.columns.block_columns();
  out.columns = layer_.columns.columns_of(place.block);
  out.x = x_of(place.block);
  return true;
}

// Fills blocks_[turn_] unless the call before has.
void OneRowWorker::find_block(const Place& place) {
  auto& found = blocks_[turn_];
  if (std::exchange(found.found, true)) return;
  found.kind = as_block(place, found.block) ? found.block.kind() : OneRowKind::kNone;
}

template <bool kInteger>
void OneRowWorker::multiply_source(const TileSource& weight, const std::byte* x, std::int64_t tiles) {
  for (std::int64_t t = 0; t < tiles; ++t) {
    load_tile<6>(x + t * kTileRowBytes, 4);
    load_tile<4>(weight.tile[0] + t * weight.step, weight.stride);
    multiply_tiles<kInteger, 0, 4, 6>();
    load_tile<5>(weight.tile[1] + t * weight.step, weight.stride);
    multiply_tiles<kInteger, 2, 5, 6>();
  }
}

template <bool kInteger>
void OneRowWorker::multiply_panels(const Place& place) {
  const AmxColumns& columns = layer_.columns;
  const std::int64_t tiles = columns.tiles_of(place.block), step = columns.panel_tiles(place.block);
  const std::byte* x = x_of(place.block);
  for (std::int64_t t = 0; t < tiles; t += step, x += step * kTileRowBytes) {
    const std::int64_t count = std::min(step, tiles - t);
    maker_.begin({place.unit, layer_.units.at(place.unit), place.block, t, count}, false);
    multiply_source<kInteger>(maker_.finish(), x, count);
  }
}

template <bool kInteger>
void OneRowWorker::multiply(const Place& place, const Place* next) {
  const Unit unit = layer_.units.at(place.unit);
  zero_tile<0>();
  zero_tile<2>();
  find_block(place);
  auto& current = blocks_[turn_];
  current.found = false;
  turn_ ^= 1;
  TileSource source;
  if (current.kind != OneRowKind::kNone) {
    if (next) find_block(*next);
    const bool more = next && blocks_[turn_].kind == current.kind;
    one_row_.multiply(current.kind, current.block, more ? &blocks_[turn_].block : nullptr);
  } else if (direct_tiles(layer_.columns, layer_.weight, unit, place.block, source)) {
    multiply_source<kInteger>(source, x_of(place.block), layer_.columns.tiles_of(place.block));
  } else {
    multiply_panels<kInteger>(place);
  }
  finish();
  float* products = memory_[turn_][0];
  store_tile<0>(products, 4);
  store_tile<2>(products + kTileRows, 4);
  const UnitSums sums{layer_.out ? layer_.out->row(0) + unit.row[0] : sums_, 0};
  done_ = {unit, sums, 0, place.block == 0, place.block + 1 == layer_.columns.blocks()};
  products_ = products;
}

void OneRowWorker::finish() {
  if (!products_) return;
  __m512 row[2][1] = {{_mm512_load_ps(products_)}, {_mm512_load_ps(products_ + kTileRows)}};
  epilogue_.finish_rows<1>(done_, 0, row[0], row[1]);
  products_ = nullptr;
}

const std::byte* arranged_row(const CpuLinearInput& in, const CpuLinearWeight& weight) {
  if (!arranges(in, weight)) return in.row_data(0);
  for (std::int64_t column = 0; column < in.columns(); column += 128)
    arrange_columns(in, weight, 0, column, in.packing_space() + column * 2, kTileRowBytes);
  return in.packing_space();
}

// One of `out` and `gated` is given.
void one_row(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
             const CpuLinearWeight& weight, CpuMatrix* out, CpuLinearInput* gated) {
  const OneRow layer{in,
                     weight,
                     out,
                     gated,
                     AmxColumns(in, weight),
                     AmxUnits(weight.rows(), gated != nullptr),
                     arranged_row(in, weight)};
  const auto body = [&](int thread) { OneRowWorker(layer, buffers, thread).run(); };
  pool.run(std::ref(body));  // by reference: a std::function of all that is captured would allocate
  if (gated) gated->end_row(0);
}

}  // namespace

void amx_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                const CpuLinearWeight& weight, CpuMatrix& out) {
  if (takes_planes(in, weight)) return amx_planes(pool, buffers, in, weight, &out, nullptr);
  if (in.rows() > 1) return amx_many_rows(pool, buffers, in, weight, &out, nullptr);
  one_row(pool, buffers, in, weight, &out, nullptr);
}

void amx_gated_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                      const CpuLinearWeight& gate_up, CpuLinearInput& out) {
  if (takes_planes(in, gate_up)) return amx_planes(pool, buffers, in, gate_up, nullptr, &out);
  if (in.rows() > 1) return amx_many_rows(pool, buffers, in, gate_up, nullptr, &out);
  one_row(pool, buffers, in, gate_up, nullptr, &out);
}

}  // namespace bise
