// Linear layers on AMX tiles. The product is computed transposed, C = W X^T: 16 rows of the weight are a tile
// as they lie in memory, and for one row of X the other factor is X as it lies in memory, so that decoding
// streams the mapped weights straight into tiles. Several rows of X are packed once into tiles of 16 rows.
//
// Columns are summed in blocks of kBlockBytes a row: within a block in a tile's accumulators (in order of the
// columns, each output on its own), the blocks' sums in float32. That order is the same for any number of
// rows, so one row alone and 512 rows give the same bits.
//
// The tile unit runs beside the vector units. While it multiplies one pair of token tiles, the products of
// the pair before are transposed, scaled and written, and the next unit's weights are fetched into the cache.

// g++ 12 warns of the unset registers in its own AVX-512 intrinsics (gcc bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include <algorithm>

#include "backend/cpu/amx_tiles.h"
#include "backend/cpu/linear_kernels.h"
#include "backend/cpu/linear_scratch.h"
#include "backend/cpu/linear_weight.h"
#include "backend/cpu/unpack_amx.h"
#include "base/check.h"

// What is included above keeps the baseline instruction set, so that no shared inline function is compiled
// for more than the processor has.
#pragma GCC target( \
    "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512vnni,avx512bf16,avx512vbmi")
#include "backend/cpu/linear_driver.h"
#include "backend/cpu/simd_avx512.h"
#include "backend/cpu/transpose_kernel.h"

namespace bise {
namespace {

constexpr std::int64_t kTileRows = 16, kTileBytes = kTileRows * kTileRowBytes;
constexpr std::int64_t kProducts = 4 * 256;  // floats of a unit's products with a pair of token tiles

// One factor of the tile products: tile t of half h is at tile[h] + t * step, its rows `stride` apart.
struct TileSource {
  const std::byte* tile[2];
  std::int64_t stride, step;
};

// Products of a unit and up to 32 rows of the input, waiting to be added to the sums: C tile (h, j) of weight
// half h and token tile j is at products + (2 h + j) * 256. Finished in slices of four rows.
struct Pending {
  const float* products = nullptr;
  Unit unit{};
  UnitSums sums{};             // of the first row
  std::int64_t first_row = 0;  // in the input
  std::int64_t rows = 0;
  bool first_block = false, last_block = false;
  int next = 0, slices = 0;
};

// Walks over the cache lines of the weights that come next.
class Prefetcher {
 public:
  Prefetcher() = default;
  Prefetcher(const std::byte* const (&first)[2], const std::int64_t (&rows)[2], std::int64_t row_bytes,
             std::int64_t stride)
      : first_{first[0], first[1]}, rows_{rows[0], rows[1]}, row_bytes_(row_bytes), stride_(stride) {}

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

// C tile (h, j) = sum over `tiles` tiles of weight half h and token tile j, as in Pending; rows of C are
// `product_stride` bytes apart. Calls beside() after each step: work for the vector units.
template <bool kInteger, int kTokenTiles, class Beside>
void multiply(const TileSource& weight, const TileSource& tokens, std::int64_t tiles, float* products,
              std::int64_t product_stride, const Beside& beside) {
  zero_tile<0>();
  zero_tile<2>();
  if constexpr (kTokenTiles == 2) {
    zero_tile<1>();
    zero_tile<3>();
  }
  for (std::int64_t t = 0; t < tiles; ++t) {
    // The weights' panel is used again for the next tokens and shall stay in the first-level cache.
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
  store_tile<0>(products, product_stride);
  store_tile<2>(products + 512, product_stride);
  if constexpr (kTokenTiles == 2) {
    store_tile<1>(products + 256, product_stride);
    store_tile<3>(products + 768, product_stride);
  }
}

void configure_tiles(bool one_row) {
  TileConfig config;
  const int token_bytes = one_row ? 4 : 64;
  for (int tile = 0; tile < 4; ++tile) config.set(tile, kTileRows, token_bytes);
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
        block_columns_(integer_ ? kBlockBytes : kBlockBytes / 2),
        blocks_((in.columns() + block_columns_ - 1) / block_columns_),
        tile_columns_(integer_ ? kTileRowBytes : kTileRowBytes / 2) {
    if (in.rows() == 1 && arranged_) arrange_one();
  }

  bool packs() const { return in_.rows() > 1; }
  std::int64_t blocks() const { return blocks_; }

  // Packs rows [first, first + rows) of the input into tiles, the part of `thread` of `threads`.
  void pack(std::int64_t first, std::int64_t rows, int thread, int threads);

 private:
  std::int64_t columns_of(std::int64_t block) const {
    return std::min(block_columns_, in_.columns() - block * block_columns_);
  }
  // Tiles of a block; whole groups of four in nibble order.
  std::int64_t tiles_of(std::int64_t block) const {
    const std::int64_t columns = columns_of(block), per = weight_.nibbles() ? 128 : tile_columns_;
    return (columns + per - 1) / per * (per / tile_columns_);
  }
  // Packed tiles of a chunk: [block][token tile][kBlockTiles].
  std::byte* packed(std::int64_t block, std::int64_t token_tile) const {
    return in_.packing_space() +
           (block * (in_.packed_rows() / kTileRows) + token_tile) * kBlockTiles * kTileBytes;
  }
  void arrange_one();
  void arrange(std::int64_t row, std::int64_t column, std::byte* out, std::int64_t tile_step) const;
  bool direct_source(std::int64_t row, std::int64_t count, std::int64_t block, const std::byte*& tile,
                     std::int64_t& stride) const;
  TileSource weight_source(const Unit& unit, std::int64_t block, bool direct, std::byte* panel) const;
  Prefetcher prefetcher(const Unit& unit, std::int64_t block) const;

  const CpuLinearInput& in_;
  const CpuLinearWeight& weight_;
  const bool integer_, arranged_;
  const std::int64_t block_columns_, blocks_, tile_columns_;
};

class AmxProduct::Worker {
 public:
  Worker(const AmxProduct& product, LinearScratch::Buffers::PerThread& scratch, CpuLinearInput* gated)
      : product_(product), in_(product.in_), weight_(product.weight_), scratch_(scratch), gated_(gated) {
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
    while (pending_.next < pending_.slices) finish_slice();
  }

 private:
  void multiply_one(const TileSource& weight, std::int64_t block, Pending& done);
  void finish_slice();
  void finish_row(const Pending& done, std::int64_t r, __m512 first_half, __m512 second_half) const;
  __m512 total(const Pending& done, std::int64_t r, int h, __m512 product) const;

  const AmxProduct& product_;
  const CpuLinearInput& in_;
  const CpuLinearWeight& weight_;
  LinearScratch::Buffers::PerThread& scratch_;
  CpuLinearInput* gated_;  // where gated products go; null: plain sums
  Pending pending_;
  int buffer_ = 0;  // which half of scratch_.products is free
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
  const std::int64_t quad_columns = 4 * tile_columns_;
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
bool AmxProduct::direct_source(std::int64_t row, std::int64_t count, std::int64_t block,
                               const std::byte*& tile, std::int64_t& stride) const {
  if (count != kTileRows || columns_of(block) % tile_columns_ != 0) return false;
  const LinearPart& part = weight_.part_of(row);
  if (!integer_ && part.format != RowFormat::kBF16) return false;
  if (row + kTileRows > part.first_row + part.rows()) return false;
  tile = part.row(row - part.first_row) + block * kBlockBytes;
  stride = part.row_bytes;
  return true;
}

TileSource AmxProduct::weight_source(const Unit& unit, std::int64_t block, bool direct,
                                     std::byte* panel) const {
  TileSource source;
  std::int64_t strides[2];
  if (direct && direct_source(unit.row[0], unit.count[0], block, source.tile[0], strides[0]) &&
      direct_source(unit.row[1], unit.count[1], block, source.tile[1], strides[1]) &&
      strides[0] == strides[1]) {
    source.stride = strides[0];
    source.step = kTileRowBytes;
    return source;
  }
  const std::int64_t step = 2 * kTileBytes;
  for (int h = 0; h < 2; ++h) {
    source.tile[h] = panel + h * kTileBytes;
    for (std::int64_t r = 0; r < unit.count[h]; ++r) {
      const LinearPart& part = weight_.part_of(unit.row[h] + r);
      unpack_row(part, integer_, weight_.nibbles(), unit.row[h] + r - part.first_row, block * block_columns_,
                 columns_of(block), panel + h * kTileBytes + r * kTileRowBytes, step);
    }
  }
  source.stride = kTileRowBytes;
  source.step = step;
  return source;
}

Prefetcher AmxProduct::prefetcher(const Unit& unit, std::int64_t block) const {
  const std::byte* first[2];
  std::int64_t rows[2], row_bytes = 0, stride = 0;
  for (int h = 0; h < 2; ++h) {
    const LinearPart& part = weight_.part_of(unit.row[unit.count[h] ? h : 0]);
    const std::int64_t row = unit.row[unit.count[h] ? h : 0] - part.first_row;
    first[h] = part.row(row) + part.row_bytes * block * block_columns_ / in_.columns();
    rows[h] = std::clamp<std::int64_t>(part.rows() - row, 0, unit.count[h]);
    row_bytes = part.row_bytes * columns_of(block) / in_.columns();
    stride = part.row_bytes;
  }
  return {first, rows, row_bytes, stride};
}

// The product's block sum added to those before; scaled, and with bias, when it is the last.
__m512 AmxProduct::Worker::total(const Pending& done, std::int64_t r, int h, __m512 product) const {
  const auto mask = static_cast<__mmask16>((1u << done.unit.count[h]) - 1u);
  if (!done.first_block) {
    const __m512 before = _mm512_maskz_loadu_ps(mask, done.sums.half(r, h));
    product =
        product_.integer_
            ? _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(before), _mm512_castps_si512(product)))
            : _mm512_add_ps(before, product);
  }
  if (!done.last_block) return product;
  if (product_.integer_) product = _mm512_cvtepi32_ps(_mm512_castps_si512(product));
  if (weight_.row_scales())
    product = _mm512_mul_ps(product, _mm512_maskz_loadu_ps(mask, weight_.row_scales() + done.unit.row[h]));
  if (in_.type() != InputType::kNone)
    product = _mm512_mul_ps(product, _mm512_set1_ps(in_.scale(done.first_row + r)));
  if (weight_.bias())
    product = _mm512_add_ps(product, _mm512_maskz_loadu_ps(mask, weight_.bias() + done.unit.row[h]));
  return product;
}

void AmxProduct::Worker::finish_row(const Pending& done, std::int64_t r, __m512 first_half,
                                    __m512 second_half) const {
  const __m512 totals[2] = {total(done, r, 0, first_half), total(done, r, 1, second_half)};
  if (gated_ && done.last_block) {
    const std::int64_t row = done.first_row + r, column = done.unit.row[0];
    const auto mask = static_cast<__mmask16>((1u << done.unit.count[0]) - 1u);
    const __m512 value = gate<SimdAvx512>(totals[0], totals[1]);
    if (gated_->bf16_row(row))
      _mm256_mask_storeu_epi16(gated_->bf16_row(row) + column, mask, (__m256i)_mm512_cvtneps_pbh(value));
    else
      _mm512_mask_storeu_ps(gated_->staging(row) + column, mask, value);
    return;
  }
  for (int h = 0; h < 2; ++h)
    _mm512_mask_storeu_ps(done.sums.half(r, h), static_cast<__mmask16>((1u << done.unit.count[h]) - 1u),
                          totals[h]);
}

void AmxProduct::Worker::finish_slice() {
  const int slice = pending_.next++;
  __m512 rows[2][4];
  for (int h = 0; h < 2; ++h)
    transpose_columns(pending_.products + (2 * h + slice / 4) * 256, slice % 4, rows[h]);
  for (int i = 0; i < 4 && 4 * slice + i < pending_.rows; ++i)
    finish_row(pending_, 4 * slice + i, rows[0][i], rows[1][i]);
}

// One row of input: it is its own packed form, and its products lie in the order of the weight's rows.
void AmxProduct::Worker::multiply_one(const TileSource& weight, std::int64_t block, Pending& done) {
  const std::byte* x = (product_.arranged_ ? in_.packing_space() : in_.row_data(0)) + block * kBlockBytes;
  const TileSource tokens{{x, x}, 4, kTileRowBytes};
  float* products = scratch_.products.data();
  const auto run = product_.integer_ ? multiply<true, 1, void (*)(std::int64_t)>
                                     : multiply<false, 1, void (*)(std::int64_t)>;
  run(weight, tokens, product_.tiles_of(block), products, 4, [](std::int64_t) {});
  finish_row(done, 0, _mm512_load_ps(products), _mm512_load_ps(products + 512));
}

void AmxProduct::Worker::multiply_unit(const Unit& unit, std::int64_t block, std::int64_t first,
                                       std::int64_t rows, UnitSums sums, const Unit* next,
                                       std::int64_t next_block) {
  const TileSource weight = product_.weight_source(unit, block, rows <= kDirectRows, scratch_.panel.data());
  const std::int64_t tiles = product_.tiles_of(block);
  Pending done{nullptr, unit, sums, first, rows, block == 0, block + 1 == product_.blocks_};
  if (in_.rows() == 1) return multiply_one(weight, block, done);

  const int token_tiles = static_cast<int>((rows + kTileRows - 1) / kTileRows);
  Prefetcher prefetcher;
  std::int64_t lines_per_step = 0;
  if (next && rows > kDirectRows) {
    prefetcher = product_.prefetcher(*next, next_block);
    const std::int64_t steps = (token_tiles + 1) / 2 * tiles;
    lines_per_step = (prefetcher.lines() + steps - 1) / steps;
  }
  const auto beside = [&](std::int64_t step) {
    prefetcher.fetch(lines_per_step);
    if (step % 2 == 1 && pending_.next < pending_.slices) finish_slice();
  };
  for (int tile = 0; tile < token_tiles; tile += 2) {
    const bool pair = tile + 1 < token_tiles;
    const TileSource tokens{{product_.packed(block, tile), product_.packed(block, tile + (pair ? 1 : 0))},
                            kTileRowBytes,
                            kTileBytes};
    float* products = scratch_.products.data() + buffer_ * kProducts;
    const auto run =
        pair
            ? (product_.integer_ ? multiply<true, 2, decltype(beside)> : multiply<false, 2, decltype(beside)>)
            : (product_.integer_ ? multiply<true, 1, decltype(beside)>
                                 : multiply<false, 1, decltype(beside)>);
    run(weight, tokens, tiles, products, kTileRowBytes, beside);
    finish();
    buffer_ ^= 1;
    pending_ = done;
    pending_.products = products;
    pending_.sums.first += tile * kTileRows * sums.stride;
    pending_.first_row += tile * kTileRows;
    pending_.rows = std::min(2 * kTileRows, rows - tile * kTileRows);
    pending_.slices = static_cast<int>((pending_.rows + 3) / 4);
  }
}

}  // namespace

void amx_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                const CpuLinearWeight& weight, CpuMatrix& out) {
  run_linear<AmxProduct>(pool, buffers, in, weight, out);
}

void amx_gated_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                      const CpuLinearWeight& gate_up, CpuLinearInput& out) {
  run_gated<AmxProduct>(pool, buffers, in, gate_up, out);
}

}  // namespace bise
