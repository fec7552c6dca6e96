// Linear layers on AMX tiles for several rows of input. The product is computed transposed, C = W X^T: 16
// rows of the weight are a tile as they lie in memory, and the rows of X are packed into B tiles, a pair of
// token tiles for each 32 rows.
//
//   packed input   a chunk of rows, a block of columns: stays in the second-level cache and streams past
//   panel          32 rows of the weight, up to kPanelTiles tiles: stays in the first-level cache
//   products       of a pair, in four tiles; between the panels of a block they wait in memory
//
// The tile unit runs beside the vector units: while it multiplies one panel with all pairs, the next panel is
// made, the weights after it are fetched, and the products of a pair before are transposed, scaled and
// written.
//
// Many rows are divided among the threads, so that what a thread computes stays in its own cache and nobody
// waits; a few are computed by all threads, each with a part of the weight's rows. The order of each output's
// sum is that of one row (linear_amx.cpp), so every way gives the same bits.

// g++ 12 warns of the unset registers in its own AVX-512 intrinsics (gcc bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include "backend/cpu/many_rows_amx.h"

#include <immintrin.h>

#include <algorithm>
#include <functional>

#include "backend/cpu/amx_columns.h"
#include "backend/cpu/amx_tiles.h"
#include "backend/cpu/linear_scratch.h"
#include "backend/cpu/linear_weight.h"
#include "backend/cpu/row_share.h"
#include "backend/cpu/unpack_amx.h"
#include "base/check.h"

#pragma GCC target( \
    "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vbmi")
#include "backend/cpu/amx_epilogue.h"
#include "backend/cpu/amx_panel.h"
#include "backend/cpu/amx_units.h"

namespace bise {
namespace {

constexpr std::int64_t kPairRows = 2 * kTileRows;
constexpr std::int64_t kProducts = LinearScratch::Buffers::kProducts;
static_assert(LinearScratch::Buffers::kPanelBytes >= 2 * PanelMaker::kPanelBytes);

// Of the second-level cache, for the packed input.
constexpr std::int64_t kCacheBytes = std::int64_t{1} << 20;
constexpr std::int64_t kFewestRows = 64;  // of a chunk, whatever its columns

// One linear layer: what all threads share.
struct ManyRows {
  const CpuLinearInput& in;
  const CpuLinearWeight& weight;
  CpuMatrix* out;         // one of the two
  CpuLinearInput* gated;  // is given
  AmxColumns columns;
  AmxUnits units;
  bool shared_rows;  // each thread has rows of its own; else, units of its own

  // Blocks whose columns are packed together. A gated unit goes through all of them, since the sums of all
  // units have no place to wait in; so does any unit with few rows, and the weights are read in their order.
  std::int64_t blocks_of_pass() const { return gated || in.rows() <= kFewRows ? columns.blocks() : 1; }
  // Bytes of a block of a token tile.
  std::int64_t packed_block() const { return (columns.tiles_of(0) + 3) / 4 * 4 * kTileBytes; }
  std::int64_t rows_of_chunk() const {
    const std::int64_t row_bytes = packed_block() / kTileRows * blocks_of_pass();
    return std::clamp(kCacheBytes / row_bytes, kFewestRows, CpuLinearInput::kChunkRows) / kPairRows *
           kPairRows;
  }
};

template <int kTokenTiles>
void zero_products() {
  zero_tile<0>();
  zero_tile<2>();
  if constexpr (kTokenTiles == 2) {
    zero_tile<1>();
    zero_tile<3>();
  }
}

// The accumulators from or to memory, C tile (h, j) at (2 h + j) * 256.
template <int kTokenTiles>
void load_products(const float* products) {
  const auto* base = reinterpret_cast<const std::byte*>(products);
  load_tile_once<0>(base, kTileRowBytes);
  load_tile_once<2>(base + 2 * kTileBytes, kTileRowBytes);
  if constexpr (kTokenTiles == 2) {
    load_tile_once<1>(base + kTileBytes, kTileRowBytes);
    load_tile_once<3>(base + 3 * kTileBytes, kTileRowBytes);
  }
}

template <int kTokenTiles>
void store_products(float* products) {
  store_tile<0>(products, kTileRowBytes);
  store_tile<2>(products + 512, kTileRowBytes);
  if constexpr (kTokenTiles == 2) {
    store_tile<1>(products + 256, kTileRowBytes);
    store_tile<3>(products + 768, kTileRowBytes);
  }
}

// Adds to C tile (h, j) the sum over `tiles` tiles of weight half h and token tile j, which lie by turns at
// `tokens`. Calls beside() after each: work for the vector units.
template <bool kInteger, int kTokenTiles, class Beside>
void multiply(const TileSource& weight, const std::byte* tokens, std::int64_t tiles, const Beside& beside) {
  const std::byte *first = weight.tile[0], *second = weight.tile[1];
  for (std::int64_t t = 0; t < tiles; ++t) {
    // The weights are used again for the next tokens and shall stay in the first-level cache.
    load_tile_once<6>(tokens, kTileRowBytes);
    load_tile<4>(first, weight.stride);
    multiply_tiles<kInteger, 0, 4, 6>();
    if constexpr (kTokenTiles == 2) {
      load_tile_once<7>(tokens + kTileBytes, kTileRowBytes);
      multiply_tiles<kInteger, 1, 4, 7>();
    }
    load_tile<5>(second, weight.stride);
    multiply_tiles<kInteger, 2, 5, 6>();
    if constexpr (kTokenTiles == 2) multiply_tiles<kInteger, 3, 5, 7>();
    beside();
    tokens += 2 * kTileBytes;
    first += weight.step;
    second += weight.step;
  }
}

// The products of a pair that wait for their epilogue.
struct Pending {
  Products at;
  const float* products = nullptr;
  std::int64_t rows = 0, next = 0, slices = 0;

  bool done() const { return next == slices; }
  void finish_slice(const AmxEpilogue& epilogue) { epilogue.finish_slice(at, products, next++, rows); }
};

// `work` pieces spread evenly over `steps` steps.
class Pace {
 public:
  Pace() = default;
  Pace(std::int64_t work, std::int64_t steps) : work_(work), steps_(steps) {}
  template <class Piece>
  void step(const Piece& piece) {
    for (due_ += work_; due_ >= steps_; due_ -= steps_) piece();
  }

 private:
  std::int64_t work_ = 0, steps_ = 1, due_ = 0;
};

// One thread of a layer.
class ManyRowsWorker {
 public:
  ManyRowsWorker(const ManyRows& layer, LinearScratch::Buffers& buffers, int thread)
      : layer_(layer),
        scratch_(buffers.threads[static_cast<std::size_t>(thread)]),
        barrier_(buffers.barrier),
        thread_(thread),
        threads_(static_cast<int>(buffers.threads.size())),
        units_(my_part(layer.units.count())),
        maker_(layer.columns, layer.weight, scratch_.panel.data()),
        epilogue_(layer.in, layer.weight, layer.gated),
        packed_(buffers.threads[static_cast<std::size_t>(layer.shared_rows ? thread : 0)].packed.data()) {
    TileConfig config;
    for (int tile = 0; tile < 8; ++tile) config.set(tile, kTileRows, kTileRowBytes);
    load_tile_config(config);
  }
  ~ManyRowsWorker() { release_tiles(); }
  ManyRowsWorker(const ManyRowsWorker&) = delete;
  ManyRowsWorker& operator=(const ManyRowsWorker&) = delete;

  void run() {
    RowShare mine{0, layer_.in.rows()};
    if (layer_.shared_rows) mine = share_of_rows(layer_.in.rows(), thread_, threads_);
    const std::int64_t most = layer_.rows_of_chunk(), chunks = (mine.end - mine.begin + most - 1) / most;
    for (std::int64_t c = 0; c < chunks; ++c) {
      const RowShare part =
          share_of_rows(mine.end - mine.begin, static_cast<int>(c), static_cast<int>(chunks));
      run_chunk(mine.begin + part.begin, part.end - part.begin);
    }
  }

 private:
  // This thread's part of what the threads of a chunk divide: all, where it has the chunk for itself.
  UnitRange my_part(std::int64_t count) const {
    return layer_.shared_rows ? UnitRange(count, 0, 1) : UnitRange(count, thread_, threads_);
  }
  void wait_for_others() {
    if (!layer_.shared_rows) barrier_.wait();
  }

  void run_chunk(std::int64_t first_row, std::int64_t rows) {
    first_row_ = first_row;
    rows_ = rows;
    token_tiles_ = (rows + kTileRows - 1) / kTileRows;
    pairs_ = (token_tiles_ + 1) / 2;
    turn_ = 0;
    for (std::int64_t block = 0; block < layer_.columns.blocks(); block += layer_.blocks_of_pass())
      run_pass(block, block + layer_.blocks_of_pass());
    turn_pending();
    turn_pending();
    if (!layer_.gated) return;
    wait_for_others();
    const UnitRange mine = my_part(rows);
    for (std::int64_t r = mine.begin; r < mine.end; ++r) layer_.gated->end_row(first_row + r);
  }

  // All units over the blocks [first_block, end_block).
  void run_pass(std::int64_t first_block, std::int64_t end_block) {
    first_block_ = first_block;
    end_block_ = end_block;
    wait_for_others();  // with the packed input of the pass before
    for (std::int64_t block = first_block; block < end_block; ++block) pack(block);
    wait_for_others();
    if (units_.begin == units_.end) return;
    Panel panel = panel_at(units_.begin, first_block, 0);
    maker_.begin(panel, pairs_ > 1);
    for (bool more = true; more;) {
      const TileSource source = maker_.finish();
      const Panel current = panel;
      more = advance(panel);
      if (more) maker_.begin(panel, pairs_ > 1);
      if (current.tile == 0) begin_block(current);
      layer_.weight.integer() ? multiply_panel<true>(current, source)
                              : multiply_panel<false>(current, source);
    }
  }

  Panel panel_at(std::int64_t index, std::int64_t block, std::int64_t tile) const {
    return {index, layer_.units.at(index), block, tile,
            std::min(layer_.columns.panel_tiles(block), layer_.columns.tiles_of(block) - tile)};
  }
  // To the next panel of the pass; false at its end.
  bool advance(Panel& panel) const {
    std::int64_t index = panel.index, block = panel.block, tile = panel.tile + panel.tiles;
    if (tile == layer_.columns.tiles_of(block)) {
      tile = 0;
      if (++block == end_block_) block = first_block_, ++index;
      if (index == units_.end) return false;
    }
    panel = panel_at(index, block, tile);
    return true;
  }
  // A unit's block begins: the weights that come after it are fetched meanwhile.
  void begin_block(Panel panel) {
    if (pairs_ <= 2) turn_ = (turn_ + 1) % 3;
    panel.tiles = layer_.columns.tiles_of(panel.block);
    const std::int64_t steps = pairs_ * panel.tiles;
    prefetcher_ = {};
    // A few rows read the file as fast as it comes: fetching beside them would only disturb the processor's
    // own prefetching.
    if ((pairs_ > 1 || !maker_.direct()) && advance(panel))
      prefetcher_ = {layer_.weight, panel.unit,
                     layer_.columns.columns_of(panel.block, 0, layer_.columns.tiles_of(panel.block))};
    fetching_ = {prefetcher_.lines(), steps};
  }

  std::byte* packed(std::int64_t block, std::int64_t pair) const {
    return packed_ + ((block - first_block_) * pairs_ + pair) * 2 * layer_.packed_block();
  }
  void pack(std::int64_t block);
  template <bool kInteger>
  void multiply_panel(const Panel& panel, const TileSource& source);
  void add_pending(const Panel& panel, std::int64_t pair, const float* products);

  // Ends what is left of the pair before the last, and the last takes its place. Not the last itself: the
  // tile unit has still to store its products, and waiting for them would keep it from being fed.
  void turn_pending() {
    while (!pending_.done()) pending_.finish_slice(epilogue_);
    pending_ = last_;
    last_ = {};
  }

  const ManyRows& layer_;
  LinearScratch::Buffers::PerThread& scratch_;
  SpinBarrier& barrier_;
  const int thread_, threads_;
  const UnitRange units_;
  PanelMaker maker_;
  const AmxEpilogue epilogue_;
  std::byte* const packed_;
  std::int64_t first_row_ = 0, rows_ = 0, token_tiles_ = 0, pairs_ = 0;  // of the chunk
  std::int64_t first_block_ = 0, end_block_ = 0;                         // of the pass
  Pending pending_, last_;
  WeightPrefetcher prefetcher_;
  Pace fetching_;
  int turn_ = 0;  // of the memory for the products, where one or two pairs would meet them too soon
};

// The chunk's rows of a block into tiles, or this thread's part of them.
void ManyRowsWorker::pack(std::int64_t block) {
  const CpuLinearInput& in = layer_.in;
  const bool arranged = arranges(in, layer_.weight);
  const std::int64_t quad_columns = 4 * layer_.columns.tile_columns();
  const std::int64_t first_column = block * layer_.columns.block_columns();
  const std::int64_t quads = (layer_.columns.columns_of(block) + quad_columns - 1) / quad_columns;
  const UnitRange mine = my_part(token_tiles_ * quads);
  alignas(64) std::byte rows_of_tile[4 * kTileBytes];
  for (std::int64_t i = mine.begin; i < mine.end; ++i) {
    const std::int64_t token_tile = i / quads, quad = i % quads;
    const std::int64_t row = first_row_ + token_tile * kTileRows;
    std::byte* out = packed(block, token_tile / 2) + (quad * 8 + token_tile % 2) * kTileBytes;
    const std::byte* from = in.row_data(row) + block * kBlockBytes + quad * 4 * kTileRowBytes;
    std::int64_t stride = in.row_bytes(), step = kTileRowBytes;
    if (layer_.weight.nibbles() && !in.is_int8()) {
      transpose_nibbles(from, stride, out, 2 * kTileBytes);
      continue;
    }
    if (arranged) {
      for (std::int64_t r = 0; r < kTileRows; ++r)
        arrange_columns(in, layer_.weight, row + r, first_column + quad * quad_columns,
                        rows_of_tile + r * kTileRowBytes, kTileBytes);
      from = rows_of_tile;
      stride = kTileRowBytes;
      step = kTileBytes;
    }
    for (int tile = 0; tile < 4; ++tile)
      transpose_tile(from + tile * step, stride, out + tile * 2 * kTileBytes);
  }
}

// The panel with all rows of the chunk.
template <bool kInteger>
void ManyRowsWorker::multiply_panel(const Panel& panel, const TileSource& source) {
  const bool first = panel.tile == 0;
  const bool last = panel.tile + panel.tiles == layer_.columns.tiles_of(panel.block);
  Pace making(maker_.pieces(), pairs_ * panel.tiles);
  bool slice = false;
  const auto beside = [&] {
    fetching_.step([&] { prefetcher_.fetch(); });
    making.step([&] { maker_.make(); });
    if ((slice = !slice) && !pending_.done()) pending_.finish_slice(epilogue_);
  };
  for (std::int64_t pair = 0; pair < pairs_; ++pair) {
    const std::byte* tokens = packed(panel.block, pair) + panel.tile * 2 * kTileBytes;
    // Free again after two more pairs.
    float* products = scratch_.products.data() + (turn_ * pairs_ + pair) * kProducts;
    if (2 * pair + 1 < token_tiles_) {
      first ? zero_products<2>() : load_products<2>(products);
      multiply<kInteger, 2>(source, tokens, panel.tiles, beside);
      store_products<2>(products);
    } else {
      first ? zero_products<1>() : load_products<1>(products);
      multiply<kInteger, 1>(source, tokens, panel.tiles, beside);
      store_products<1>(products);
    }
    // Also between the panels of a block, where its products would be overwritten before they are finished.
    turn_pending();
    if (last) add_pending(panel, pair, products);
  }
}

void ManyRowsWorker::add_pending(const Panel& panel, std::int64_t pair, const float* products) {
  const std::int64_t row = pair * kPairRows;
  UnitSums sums{scratch_.sums.data() + row * 2 * Unit::kHalf, 2 * Unit::kHalf};
  if (layer_.out) sums = {layer_.out->row(first_row_ + row) + panel.unit.row[0], layer_.units.columns()};
  last_.at = {panel.unit, sums, first_row_ + row, panel.block == 0,
              panel.block + 1 == layer_.columns.blocks()};
  last_.at.plain = epilogue_.plain(last_.at);
  last_.products = products;
  last_.rows = std::min(kPairRows, rows_ - row);
  last_.slices = (last_.rows + 3) / 4;
}

// Whether each thread has rows of its own, so that every thread widens all weights. Not those that have no
// kernel for it, unless the rows are several chunks anyway.
bool shares_rows(const ManyRows& layer, int threads) {
  const std::vector<LinearPart>& parts = layer.weight.parts();
  const bool slow = std::any_of(parts.begin(), parts.end(),
                                [](const LinearPart& part) { return part.format == RowFormat::kOther; });
  return rows_are_shared(layer.in.rows(), threads) &&
         (!slow || layer.in.rows() >= threads * layer.rows_of_chunk());
}

}  // namespace

void amx_many_rows(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                   const CpuLinearWeight& weight, CpuMatrix* out, CpuLinearInput* gated) {
  ManyRows layer{in,   weight, out, gated, AmxColumns(in, weight), AmxUnits(weight.rows(), gated != nullptr),
                 false};
  layer.shared_rows = shares_rows(layer, pool.threads());
  check(layer.rows_of_chunk() * layer.packed_block() / kTileRows * layer.blocks_of_pass() <=
            LinearScratch::Buffers::kPackedBytes,
        "a chunk of the input fits the packing memory");
  const auto body = [&](int thread) { ManyRowsWorker(layer, buffers, thread).run(); };
  pool.run(std::ref(body));  // by reference: a std::function of all that is captured would allocate
}

}  // namespace bise
