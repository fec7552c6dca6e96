// Linear layers on AMX tiles; many_rows_amx.cpp has many rows times weights whose tiles lie in the file. The
// product is computed transposed, C = W X^T: 16 rows of the weight are a tile as they lie in memory, and for
// one row of X the other factor is X as it lies in memory, so that decoding streams the mapped weights
// straight into tiles. Several rows of X are packed once into tiles of 16 rows.
//
// Columns are summed in blocks of kBlockTiles tiles: within a block in a tile's accumulators (in order of the
// columns, each output on its own), the blocks' sums in float32. That order is the same for any number of
// rows, so one row alone and 512 rows give the same bits. Weights that are not loaded from the file itself
// are widened a panel at a time: 32 rows of up to kPanelTiles tiles, which stay in the first-level cache
// while all rows of the input pass by.
//
// The tile unit runs beside the vector units. While it multiplies one pair of token tiles, the products of
// the pair before are transposed, scaled and written, and the next unit's weights are fetched into the cache.

// g++ 12 warns of the unset registers in its own AVX-512 intrinsics (gcc bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <algorithm>
#include <utility>

#include "backend/cpu/amx_columns.h"
#include "backend/cpu/amx_tiles.h"
#include "backend/cpu/linear_kernels.h"
#include "backend/cpu/linear_scratch.h"
#include "backend/cpu/linear_weight.h"
#include "backend/cpu/many_rows_amx.h"
#include "backend/cpu/one_row_amx.h"
#include "backend/cpu/unpack_amx.h"
#include "base/check.h"

// What is included above keeps the baseline instruction set, so that no shared inline function is compiled
// for more than the processor has.
#pragma GCC target( \
    "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vbmi")
#include "backend/cpu/amx_epilogue.h"
#include "backend/cpu/linear_driver.h"
#include "backend/cpu/transpose_kernel.h"

namespace bise {
namespace {

constexpr std::int64_t kTileRows = 16, kTileBytes = kTileRows * kTileRowBytes;
constexpr std::int64_t kProducts = LinearScratch::Buffers::kProducts;
static_assert(LinearScratch::Buffers::kPanelBytes >= kPanelTiles * 2 * kTileBytes);

// One factor of the tile products: tile t of half h is at tile[h] + t * step, its rows `stride` apart.
struct TileSource {
  const std::byte* tile[2];
  std::int64_t stride, step;
};

// Products of a unit and up to 32 rows of the input, waiting to be added to the sums: C tile (h, j) of weight
// half h and token tile j is at products + (2 h + j) * 256. Finished in slices of four rows.
struct Pending : Products {
  const float* products = nullptr;
  std::int64_t rows = 0;
  int next = 0, slices = 0;
};

// Walks over the cache lines of the weights that come next.
class Prefetcher {
 public:
  Prefetcher() = default;
  Prefetcher(const std::byte* const (&first)[2], const std::int64_t (&rows)[2], std::int64_t row_bytes,
             std::int64_t stride)
      : first_{first[0], first[1]},
        rows_{rows[0], rows[1]},
        row_bytes_(row_bytes),
        stride_(stride),
        half_(0) {}

  std::int64_t lines() const { return (rows_[0] + rows_[1]) * ((row_bytes_ + 63) / 64); }

  void fetch(std::int64_t count) {
    for (; count > 0 && half_ < 2; --count) {
      if (row_ < rows_[half_]) _mm_prefetch(first_[half_] + row_ * stride_ + byte_, _MM_HINT_T1);
      if ((byte_ += 64) < row_bytes_) continue;
      byte_ = 0;
      if (++row_ < rows_[half_]) continue;
      row_ = 0;
      ++half_;
    }
  }

 private:
  const std::byte* first_[2] = {};
  std::int64_t rows_[2] = {};
  std::int64_t row_bytes_ = 0, stride_ = 0, byte_ = 0, row_ = 0;
  int half_ = 2;
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

// The accumulators from or to `products`, laid out as in Pending.
template <int kTokenTiles>
void load_products(const float* products) {
  const auto* base = reinterpret_cast<const std::byte*>(products);
  load_tile<0>(base, kTileRowBytes);
  load_tile<2>(base + 2 * kTileBytes, kTileRowBytes);
  if constexpr (kTokenTiles == 2) {
    load_tile<1>(base + kTileBytes, kTileRowBytes);
    load_tile<3>(base + 3 * kTileBytes, kTileRowBytes);
  }
}

template <int kTokenTiles>
void store_products(float* products, std::int64_t stride) {
  store_tile<0>(products, stride);
  store_tile<2>(products + 512, stride);
  if constexpr (kTokenTiles == 2) {
    store_tile<1>(products + 256, stride);
    store_tile<3>(products + 768, stride);
  }
}

// Adds to C tile (h, j) the sum over `tiles` tiles of weight half h and token tile j. Calls beside(t) after
// each: work for the vector units.
template <bool kInteger, int kTokenTiles, class Beside>
void multiply(const TileSource& weight, const TileSource& tokens, std::int64_t tiles, const Beside& beside) {
  for (std::int64_t t = 0; t < tiles; ++t) {
    // The weights are used again for the next tokens and shall stay in the first-level cache.
    load_tile_once<6>(tokens.tile[0] + t * tokens.step, tokens.stride);
    load_tile<4>(weight.tile[0] + t * weight.step, weight.stride);
    multiply_tiles<kInteger, 0, 4, 6>();
    if constexpr (kTokenTiles == 2) {
      load_tile_once<7>(tokens.tile[1] + t * tokens.step, tokens.stride);
      multiply_tiles<kInteger, 1, 4, 7>();
    }
    load_tile<5>(weight.tile[1] + t * weight.step, weight.stride);
    multiply_tiles<kInteger, 2, 5, 6>();
    if constexpr (kTokenTiles == 2) multiply_tiles<kInteger, 3, 5, 7>();
    beside(t);
  }
}

void configure_tiles(bool one_row) {
  TileConfig config;
  const int token_bytes = one_row ? 4 : 64;
  for (int tile = 0; tile < 4; tile += 2) config.set(tile, kTileRows, token_bytes);
  // With one row, tiles 1 and 3 are no sums but more weights.
  for (int tile = 1; tile < 4; tile += 2) config.set(tile, kTileRows, kTileRowBytes);
  for (int tile = 4; tile < 6; ++tile) config.set(tile, kTileRows, kTileRowBytes);
  for (int tile = 6; tile < 8; ++tile) config.set(tile, kTileRows, token_bytes);
  load_tile_config(config);
}

// One linear layer: what all threads share.
class AmxProduct {
 public:
  using Simd = SimdAvx512;
  // What a thread does within the layer: its tiles, and the products that are not finished yet.
  class Worker;

  AmxProduct(const CpuLinearInput& in, const CpuLinearWeight& weight)
      : in_(in),
        weight_(weight),
        integer_(weight.integer()),
        arranged_(weight.nibbles() || in.is_int8() != integer_),
        columns_(in, weight),
        packed_tiles_(std::min(kBlockTiles, (in.columns() + 4 * columns_.tile_columns() - 1) /
                                                (4 * columns_.tile_columns()) * 4)) {
    if (in.rows() == 1 && arranged_) arrange_one();
  }

  bool packs() const { return in_.rows() > 1; }
  std::int64_t blocks() const { return columns_.blocks(); }
  std::int64_t block_columns() const { return columns_.block_columns(); }

  // Packs rows [first, first + rows) of the input into tiles, the part of `thread` of `threads`.
  void pack(std::int64_t first, std::int64_t rows, int thread, int threads);

 private:
  // Packed tiles of a chunk: [block][token tile][tiles of a block].
  std::byte* packed(std::int64_t block, std::int64_t token_tile) const {
    return in_.packing_space() +
           (block * (in_.packed_rows() / kTileRows) + token_tile) * packed_tiles_ * kTileBytes;
  }
  // The one row of the input from where the block begins.
  const std::byte* one_row(std::int64_t block) const {
    return (arranged_ ? in_.packing_space() : in_.row_data(0)) + block * kBlockBytes;
  }
  void arrange_one();
  void arrange(std::int64_t row, std::int64_t column, std::byte* out, std::int64_t tile_step) const;
  bool direct_tile(std::int64_t row, std::int64_t count, std::int64_t block, const std::byte*& tile,
                   std::int64_t& stride) const;
  bool direct_source(const Unit& unit, std::int64_t block, TileSource& source) const;
  TileSource widen(const Unit& unit, const AmxColumns::Range& columns, std::byte* panel) const;
  Prefetcher prefetcher(const Unit& unit, const AmxColumns::Range& columns) const;
  // The unit's rows as OneRowAmx takes them; false where they are not whole tiles of one order.
  bool one_row_block(const Unit& unit, std::int64_t block, OneRowBlock& out) const;

  const CpuLinearInput& in_;
  const CpuLinearWeight& weight_;
  const bool integer_, arranged_;
  const AmxColumns columns_;
  const std::int64_t packed_tiles_;
};

class AmxProduct::Worker {
 public:
  Worker(const AmxProduct& product, LinearScratch::Buffers::PerThread& scratch, CpuLinearInput* gated)
      : product_(product),
        in_(product.in_),
        weight_(product.weight_),
        scratch_(scratch),
        epilogue_(in_, weight_, gated),
        one_row_(scratch.panel.data()) {
    configure_tiles(in_.rows() == 1);
  }
  ~Worker() { release_tiles(); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // sums (+)= W[unit rows] x[rows] over block `block` of the columns for the chunk's rows; on the last block
  // scaled, and with bias, and gated where the layer is. `next`: the unit and block that come after, null at
  // the end.
  void multiply_unit(const Unit& unit, std::int64_t block, std::int64_t first, std::int64_t rows,
                     UnitSums sums, const Unit* next, std::int64_t next_block);
  // Ends what multiply_unit has left to do.
  void finish() {
    if (in_.rows() == 1) return finish_one();
    while (pending_.next < pending_.slices) finish_slice();
  }

 private:
  void find_one_row(const Unit& unit, std::int64_t block);
  void finish_one();
  template <bool kInteger>
  void multiply_one(const Pending& done, std::int64_t block, const Unit* next, std::int64_t next_block);
  Prefetcher after(const Unit& unit, std::int64_t block, std::int64_t t, std::int64_t step, const Unit* next,
                   std::int64_t next_block) const;
  template <bool kInteger>
  void multiply_panel(const Pending& done, std::int64_t block, const TileSource& weight, std::int64_t t,
                      std::int64_t tiles, Prefetcher prefetcher);
  template <bool kInteger>
  void multiply_rows(const Pending& done, std::int64_t block, const Unit* next, std::int64_t next_block);
  void finish_slice() { epilogue_.finish_slice(pending_, pending_.products, pending_.next++, pending_.rows); }

  const AmxProduct& product_;
  const CpuLinearInput& in_;
  const CpuLinearWeight& weight_;
  LinearScratch::Buffers::PerThread& scratch_;
  const AmxEpilogue epilogue_;
  Pending pending_;
  int turn_ = 0;       // see multiply_panel
  OneRowAmx one_row_;  // uses the panel's memory
  // One row: the block of this call and of the next as OneRowAmx takes them.
  struct {
    OneRowBlock block;
    OneRowKind kind = OneRowKind::kNone;
    bool found = false;
  } rows_[2];
};

// 128 columns of a row of the input as the weight wants them.
void AmxProduct::arrange(std::int64_t row, std::int64_t column, std::byte* out,
                         std::int64_t tile_step) const {
  alignas(64) std::byte wide[256];
  const std::byte* in = in_.row_data(row) + column * (in_.is_int8() ? 1 : 2);
  if (in_.is_int8()) {
    for (int i = 0; i < 4; ++i) widen_codes(in + 32 * i, wide + 64 * i);
    in = wide;
  }
  if (weight_.nibbles()) return arrange_nibbles(in, out, tile_step);
  for (int i = 0; i < 4; ++i) _mm512_store_si512(out + i * tile_step, _mm512_loadu_si512(in + 64 * i));
}

void AmxProduct::arrange_one() {
  for (std::int64_t column = 0; column < in_.columns(); column += 128)
    arrange(0, column, in_.packing_space() + column * 2, kTileRowBytes);
}

void AmxProduct::pack(std::int64_t first, std::int64_t rows, int thread, int threads) {
  const std::int64_t token_tiles = (rows + kTileRows - 1) / kTileRows, quads = kBlockTiles / 4;
  const std::int64_t quad_columns = 4 * columns_.tile_columns();
  const std::int64_t quads_of_row = (in_.columns() + quad_columns - 1) / quad_columns;
  const UnitRange mine(token_tiles * quads_of_row, thread, threads);
  alignas(64) std::byte rows_of_tile[4 * kTileBytes];
  for (std::int64_t i = mine.begin; i < mine.end; ++i) {
    const std::int64_t token_tile = i / quads_of_row, quad = i % quads_of_row;
    const std::int64_t row = first + token_tile * kTileRows;
    std::byte* out = packed(quad / quads, token_tile) + quad % quads * 4 * kTileBytes;
    const std::byte* in = in_.row_data(row) + quad * 4 * kTileRowBytes;
    std::int64_t stride = in_.row_bytes(), step = kTileRowBytes;
    if (arranged_) {
      for (std::int64_t r = 0; r < kTileRows; ++r)
        arrange(row + r, quad * quad_columns, rows_of_tile + r * kTileRowBytes, kTileBytes);
      in = rows_of_tile;
      stride = kTileRowBytes;
      step = kTileBytes;
    }
    for (int tile = 0; tile < 4; ++tile) transpose_tile(in + tile * step, stride, out + tile * kTileBytes);
  }
}

// Whether the 16 rows from `row` can be loaded as they lie in the file.
bool AmxProduct::direct_tile(std::int64_t row, std::int64_t count, std::int64_t block, const std::byte*& tile,
                             std::int64_t& stride) const {
  if (count != kTileRows || columns_.columns_of(block) % columns_.tile_columns() != 0) return false;
  const LinearPart& part = weight_.part_of(row);
  if (!integer_ && part.format != RowFormat::kBF16) return false;
  if (row + kTileRows > part.first_row + part.rows()) return false;
  tile = part.row(row - part.first_row) + block * kBlockBytes;
  stride = part.row_bytes;
  return true;
}

bool AmxProduct::direct_source(const Unit& unit, std::int64_t block, TileSource& source) const {
  std::int64_t strides[2];
  for (int h = 0; h < 2; ++h)
    if (!direct_tile(unit.row[h], unit.count[h], block, source.tile[h], strides[h])) return false;
  source.stride = strides[0];
  source.step = kTileRowBytes;
  return strides[0] == strides[1];
}

TileSource AmxProduct::widen(const Unit& unit, const AmxColumns::Range& columns, std::byte* panel) const {
  constexpr std::int64_t kStep = 2 * kTileBytes;
  for (int h = 0; h < 2; ++h)
    for (std::int64_t r = 0; r < unit.count[h];) {
      const std::int64_t row = unit.row[h] + r;
      const LinearPart& part = weight_.part_of(row);
      const std::int64_t rows = std::min(unit.count[h] - r, part.first_row + part.rows() - row);
      unpack_rows(part, integer_, weight_.nibbles(),
                  {row - part.first_row, rows, columns.first, columns.count},
                  panel + h * kTileBytes + r * kTileRowBytes, kStep);
      r += rows;
    }
  return {{panel, panel + kTileBytes}, kTileRowBytes, kStep};
}

Prefetcher AmxProduct::prefetcher(const Unit& unit, const AmxColumns::Range& columns) const {
  const std::byte* first[2];
  std::int64_t rows[2], row_bytes = 0, stride = 0;
  for (int h = 0; h < 2; ++h) {
    const std::int64_t begin = unit.row[unit.count[h] ? h : 0];
    const LinearPart& part = weight_.part_of(begin);
    first[h] = part.row(begin - part.first_row) + part.row_bytes * columns.first / in_.columns();
    rows[h] = std::min(part.first_row + part.rows() - begin, unit.count[h]);
    row_bytes = part.row_bytes * columns.count / in_.columns();
    stride = part.row_bytes;
  }
  return {first, rows, row_bytes, stride};
}

bool AmxProduct::one_row_block(const Unit& unit, std::int64_t block, OneRowBlock& out) const {
  if (integer_ || unit.count[0] != kTileRows || unit.count[1] != kTileRows) return false;
  for (int h = 0; h < 2; ++h) {
    out.part[h] = &weight_.part_of(unit.row[h]);
    out.row[h] = unit.row[h] - out.part[h]->first_row;
    const bool nibbles =
        out.part[h]->format == RowFormat::kInt4Packed || out.part[h]->format == RowFormat::kNf4;
    if (nibbles != weight_.nibbles()) return false;
  }
  out.first_column = block * block_columns();
  out.columns = columns_.columns_of(block);
  out.x = one_row(block);
  return true;
}

// The weights that come after the panel of `step` tiles at tile t.
Prefetcher AmxProduct::Worker::after(const Unit& unit, std::int64_t block, std::int64_t t, std::int64_t step,
                                     const Unit* next, std::int64_t next_block) const {
  if (t + step < product_.columns_.tiles_of(block))
    return product_.prefetcher(unit, product_.columns_.columns_of(block, t + step, step));
  if (!next) return {};
  return product_.prefetcher(
      *next, product_.columns_.columns_of(next_block, 0, product_.columns_.panel_tiles(next_block)));
}

// Fills rows_[turn_] unless the call before has.
void AmxProduct::Worker::find_one_row(const Unit& unit, std::int64_t block) {
  auto& rows = rows_[turn_];
  if (std::exchange(rows.found, true)) return;
  rows.kind = product_.one_row_block(unit, block, rows.block) ? rows.block.kind() : OneRowKind::kNone;
}

void AmxProduct::Worker::finish_one() {
  if (!pending_.products) return;
  __m512 row[2][1] = {{_mm512_load_ps(pending_.products)}, {_mm512_load_ps(pending_.products + 512)}};
  epilogue_.finish_rows<1>(pending_, 0, row);
  pending_.products = nullptr;
}

// One row of input: it is its own packed form, and its products lie in the order of the weight's rows. They
// are finished when the unit after has been multiplied, so that nothing waits for them.
template <bool kInteger>
void AmxProduct::Worker::multiply_one(const Pending& done, std::int64_t block, const Unit* next,
                                      std::int64_t next_block) {
  const std::byte* x = product_.one_row(block);
  const std::int64_t tiles = product_.columns_.tiles_of(block), step = product_.columns_.panel_tiles(block);
  TileSource weight;
  zero_products<1>();
  find_one_row(done.unit, block);
  auto& rows = rows_[turn_];
  rows.found = false;
  turn_ ^= 1;
  auto& next_rows = rows_[turn_];
  if (rows.kind != OneRowKind::kNone) {
    if (next) find_one_row(*next, next_block);
    const bool more = next && next_rows.kind == rows.kind;
    one_row_.multiply(rows.kind, rows.block, more ? &next_rows.block : nullptr);
  } else if (product_.direct_source(done.unit, block, weight)) {
    multiply<kInteger, 1>(weight, {{x, x}, 4, kTileRowBytes}, tiles, [](std::int64_t) {});
  } else {
    for (std::int64_t t = 0; t < tiles; t += step, x += step * kTileRowBytes) {
      weight = product_.widen(done.unit, product_.columns_.columns_of(block, t, step), scratch_.panel.data());
      Prefetcher prefetcher = after(done.unit, block, t, step, next, next_block);
      const std::int64_t count = std::min(step, tiles - t), lines = (prefetcher.lines() + count - 1) / count;
      multiply<kInteger, 1>(weight, {{x, x}, 4, kTileRowBytes}, count,
                            [&](std::int64_t) { prefetcher.fetch(lines); });
    }
  }
  finish_one();
  pending_ = done;
  float* products = scratch_.products.data() + turn_ * kProducts;
  pending_.products = products;
  store_products<1>(products, 4);
}

// Tiles [t, t + tiles) of the block for all rows of the chunk.
template <bool kInteger>
void AmxProduct::Worker::multiply_panel(const Pending& done, std::int64_t block, const TileSource& weight,
                                        std::int64_t t, std::int64_t tiles, Prefetcher prefetcher) {
  const bool first = t == 0, last = t + tiles == product_.columns_.tiles_of(block);
  const auto token_tiles = static_cast<int>((done.rows + kTileRows - 1) / kTileRows);
  const std::int64_t steps = (token_tiles + 1) / 2 * tiles;
  const std::int64_t lines_per_step = (prefetcher.lines() + steps - 1) / steps;
  const auto beside = [&](std::int64_t step) {
    prefetcher.fetch(lines_per_step);
    if (step % 2 == 1 && pending_.next < pending_.slices) finish_slice();
  };
  for (int tile = 0; tile < token_tiles; tile += 2) {
    const bool pair = tile + 1 < token_tiles;
    const std::byte* packed = product_.packed(block, tile) + t * kTileBytes;
    const TileSource tokens{
        {packed, packed + product_.packed_tiles_ * kTileBytes}, kTileRowBytes, kTileBytes};
    // Each pair has its own memory; a single pair takes turns with that of the unit before.
    float* products = scratch_.products.data() + (tile / 2 + (token_tiles <= 2 ? turn_ : 0)) * kProducts;
    if (pair) {
      first ? zero_products<2>() : load_products<2>(products);
      multiply<kInteger, 2>(weight, tokens, tiles, beside);
      store_products<2>(products, kTileRowBytes);
    } else {
      first ? zero_products<1>() : load_products<1>(products);
      multiply<kInteger, 1>(weight, tokens, tiles, beside);
      store_products<1>(products, kTileRowBytes);
    }
    if (!last) continue;
    finish();
    pending_ = done;
    pending_.products = products;
    pending_.sums.first += tile * kTileRows * done.sums.stride;
    pending_.first_row += tile * kTileRows;
    pending_.rows = std::min(2 * kTileRows, done.rows - tile * kTileRows);
    pending_.slices = static_cast<int>((pending_.rows + 3) / 4);
  }
}

template <bool kInteger>
void AmxProduct::Worker::multiply_rows(const Pending& done, std::int64_t block, const Unit* next,
                                       std::int64_t next_block) {
  const std::int64_t tiles = product_.columns_.tiles_of(block), step = product_.columns_.panel_tiles(block);
  turn_ ^= 1;
  TileSource weight;
  if (done.rows <= kDirectRows && product_.direct_source(done.unit, block, weight))
    return multiply_panel<kInteger>(done, block, weight, 0, tiles, {});
  for (std::int64_t t = 0; t < tiles; t += step) {
    weight = product_.widen(done.unit, product_.columns_.columns_of(block, t, step), scratch_.panel.data());
    multiply_panel<kInteger>(done, block, weight, t, std::min(step, tiles - t),
                             after(done.unit, block, t, step, next, next_block));
  }
}

void AmxProduct::Worker::multiply_unit(const Unit& unit, std::int64_t block, std::int64_t first,
                                       std::int64_t rows, UnitSums sums, const Unit* next,
                                       std::int64_t next_block) {
  const Pending done{{unit, sums, first, block == 0, block + 1 == product_.columns_.blocks()}, nullptr, rows};
  if (in_.rows() == 1)
    product_.integer_ ? multiply_one<true>(done, block, next, next_block)
                      : multiply_one<false>(done, block, next, next_block);
  else
    product_.integer_ ? multiply_rows<true>(done, block, next, next_block)
                      : multiply_rows<false>(done, block, next, next_block);
}

}  // namespace

void amx_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                const CpuLinearWeight& weight, CpuMatrix& out) {
  if (suits_amx_many_rows(in, weight)) return amx_many_rows(pool, buffers, in, weight, &out, nullptr);
  run_linear<AmxProduct>(pool, buffers, in, weight, out);
}

void amx_gated_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                      const CpuLinearWeight& gate_up, CpuLinearInput& out) {
  if (suits_amx_many_rows(in, gate_up)) return amx_many_rows(pool, buffers, in, gate_up, nullptr, &out);
  run_gated<AmxProduct>(pool, buffers, in, gate_up, out);
}

}  // namespace bise
