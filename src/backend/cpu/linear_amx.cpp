// Linear layers on AMX tiles. The product is computed transposed, C = W X^T: 16 rows of the weight are a tile
// as they lie in memory, and for one row of X the other factor is X as it lies in memory, so that decoding
// streams the mapped weights straight into tiles. Several rows of X are packed once into tiles of 16 rows.
//
// Columns are summed in blocks of kBlockBytes a row: within a block in a tile's accumulators (in order of the
// columns, each output on its own), the blocks' sums in float32. That order is the same for any number of
// rows, so one row alone and 512 rows give the same bits.
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
#include "backend/cpu/gate_kernel.h"
#include "backend/cpu/simd_avx512.h"

namespace bise {
namespace {

constexpr std::int64_t kChunkRows = CpuLinearInput::kChunkRows;
constexpr std::int64_t kTileRows = 16, kTileBytes = kTileRows * kTileRowBytes;

// Two times 16 rows of the weight that one thread multiplies together.
struct Unit {
  std::int64_t row[2];
  std::int64_t count[2];  // 0 .. 16
};

// One factor of the tile products: tile t of half h is at tile[h] + t * step, its rows `stride` apart.
struct TileSource {
  const std::byte* tile[2];
  std::int64_t stride, step;
};

// C tile (h, j) = sum over `tiles` tiles of weight half h and token tile j; stored at products + (2 h + j) *
// 256, its rows `product_stride` bytes apart.
template <bool kInteger, int kTokenTiles>
void multiply(const TileSource& weight, const TileSource& tokens, std::int64_t tiles, float* products,
              std::int64_t product_stride) {
  zero_tile<0>();
  zero_tile<2>();
  if constexpr (kTokenTiles == 2) {
    zero_tile<1>();
    zero_tile<3>();
  }
  for (std::int64_t t = 0; t < tiles; ++t) {
    load_tile<6>(tokens.tile[0] + t * tokens.step, tokens.stride);
    load_tile<4>(weight.tile[0] + t * weight.step, weight.stride);
    multiply_tiles<kInteger, 0, 4, 6>();
    if constexpr (kTokenTiles == 2) {
      load_tile<7>(tokens.tile[1] + t * tokens.step, tokens.stride);
      multiply_tiles<kInteger, 1, 4, 7>();
    }
    load_tile<5>(weight.tile[1] + t * weight.step, weight.stride);
    multiply_tiles<kInteger, 2, 5, 6>();
    if constexpr (kTokenTiles == 2) multiply_tiles<kInteger, 3, 5, 7>();
  }
  store_tile<0>(products, product_stride);
  store_tile<2>(products + 512, product_stride);
  if constexpr (kTokenTiles == 2) {
    store_tile<1>(products + 256, product_stride);
    store_tile<3>(products + 768, product_stride);
  }
}

void configure_tiles(bool one_token) {
  TileConfig config;
  const int token_bytes = one_token ? 4 : 64;
  for (int tile = 0; tile < 4; ++tile) config.set(tile, kTileRows, token_bytes);
  for (int tile = 4; tile < 6; ++tile) config.set(tile, kTileRows, kTileRowBytes);
  for (int tile = 6; tile < 8; ++tile) config.set(tile, kTileRows, token_bytes);
  load_tile_config(config);
}

// One linear layer: what all threads share.
class AmxProduct {
 public:
  AmxProduct(LinearScratch::Buffers& buffers, const CpuLinearInput& in, const CpuLinearWeight& weight)
      : buffers_(buffers),
        in_(in),
        weight_(weight),
        integer_(weight.integer()),
        arranged_(weight.nibbles() || in.is_int8() != integer_),
        element_bytes_(integer_ ? 1 : 2),
        block_columns_(kBlockBytes / element_bytes_),
        blocks_((in.columns() + block_columns_ - 1) / block_columns_),
        tile_columns_(kTileRowBytes / element_bytes_) {
    if (in.rows() == 1 && arranged_) arrange_one();
  }

  bool integer() const { return integer_; }
  std::int64_t blocks() const { return blocks_; }

  // Tiles of block `block` of the columns; whole groups of four in nibble order.
  std::int64_t tiles_of(std::int64_t block) const {
    const std::int64_t columns = columns_of(block), per = weight_.nibbles() ? 128 : tile_columns_;
    return (columns + per - 1) / per * (per / tile_columns_);
  }

  // Packs rows [first, first + rows) of the input, the part of `thread` of `threads`.
  void pack(std::int64_t first, std::int64_t rows, int thread, int threads);

  // Sums of products of the unit and the chunk's rows over block `block`:
  // sums[row * stride + halves[h] + i] (+)= W[unit.row[h] + i] x[row]; on the last block scaled, and with
  // bias.
  void multiply_unit(const Unit& unit, std::int64_t block, std::int64_t first, std::int64_t rows, bool direct,
                     float* sums, std::int64_t stride, const std::int64_t (&halves)[2],
                     LinearScratch::Buffers::PerThread& scratch);

 private:
  std::int64_t columns_of(std::int64_t block) const {
    return std::min(block_columns_, in_.columns() - block * block_columns_);
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
  template <bool kInteger>
  void finish(const Unit& unit, std::int64_t block, std::int64_t first, std::int64_t rows,
              const float* products, int token_tile, float* sums, std::int64_t stride,
              const std::int64_t (&halves)[2]) const;
  template <bool kInteger>
  void add(__m512 product, bool first, bool last, std::int64_t weight_row, std::int64_t row, __mmask16 mask,
           float* sum) const;

  LinearScratch::Buffers& buffers_;
  const CpuLinearInput& in_;
  const CpuLinearWeight& weight_;
  const bool integer_, arranged_;
  const std::int64_t element_bytes_, block_columns_, blocks_, tile_columns_;
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
  if (in_.rows() == 1) return;
  const std::int64_t token_tiles = (rows + kTileRows - 1) / kTileRows, quads = kBlockTiles / 4;
  const std::int64_t quad_columns = 4 * tile_columns_;
  const std::int64_t quads_of_row = (in_.columns() + quad_columns - 1) / quad_columns;
  const std::int64_t work = token_tiles * quads_of_row;
  alignas(64) std::byte rows_of_tile[4 * kTileBytes];
  for (std::int64_t i = work * thread / threads; i < work * (thread + 1) / threads; ++i) {
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

template <bool kInteger>
void AmxProduct::add(__m512 product, bool first, bool last, std::int64_t weight_row, std::int64_t row,
                     __mmask16 mask, float* sum) const {
  if (!first) {
    const __m512 before = _mm512_maskz_loadu_ps(mask, sum);
    product =
        kInteger
            ? _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(before), _mm512_castps_si512(product)))
            : _mm512_add_ps(before, product);
  }
  if (last) {
    if constexpr (kInteger) product = _mm512_cvtepi32_ps(_mm512_castps_si512(product));
    if (weight_.row_scales())
      product = _mm512_mul_ps(product, _mm512_maskz_loadu_ps(mask, weight_.row_scales() + weight_row));
    if (in_.type() != InputType::kNone) product = _mm512_mul_ps(product, _mm512_set1_ps(in_.scale(row)));
    if (weight_.bias())
      product = _mm512_add_ps(product, _mm512_maskz_loadu_ps(mask, weight_.bias() + weight_row));
  }
  _mm512_mask_storeu_ps(sum, mask, product);
}

template <bool kInteger>
void AmxProduct::finish(const Unit& unit, std::int64_t block, std::int64_t first, std::int64_t rows,
                        const float* products, int token_tile, float* sums, std::int64_t stride,
                        const std::int64_t (&halves)[2]) const {
  alignas(64) float transposed[256];
  const std::int64_t begin = token_tile * kTileRows, count = std::min(kTileRows, rows - begin);
  for (int h = 0; h < 2; ++h) {
    if (unit.count[h] == 0) continue;
    const auto mask = static_cast<__mmask16>((1u << unit.count[h]) - 1u);
    const float* tile = products + 512 * h;
    if (in_.rows() > 1) {
      transpose_tile(reinterpret_cast<const std::byte*>(tile), kTileRowBytes,
                     reinterpret_cast<std::byte*>(transposed));
      tile = transposed;
    }
    for (std::int64_t r = 0; r < count; ++r)
      add<kInteger>(_mm512_load_ps(tile + r * 16), block == 0, block + 1 == blocks_, unit.row[h],
                    first + begin + r, mask, sums + (begin + r) * stride + halves[h]);
  }
}

void AmxProduct::multiply_unit(const Unit& unit, std::int64_t block, std::int64_t first, std::int64_t rows,
                               bool direct, float* sums, std::int64_t stride, const std::int64_t (&halves)[2],
                               LinearScratch::Buffers::PerThread& scratch) {
  const TileSource weight = weight_source(unit, block, direct, scratch.panel.data());
  const std::int64_t tiles = tiles_of(block);
  float* products = scratch.products.data();
  const auto finish_tile = [&](const float* tile, int token_tile) {
    if (integer_)
      finish<true>(unit, block, first, rows, tile, token_tile, sums, stride, halves);
    else
      finish<false>(unit, block, first, rows, tile, token_tile, sums, stride, halves);
  };
  if (in_.rows() == 1) {
    const std::byte* x = (arranged_ ? in_.packing_space() : in_.row_data(0)) + block * kBlockBytes;
    const TileSource tokens{{x, x}, 4, kTileRowBytes};
    if (integer_)
      multiply<true, 1>(weight, tokens, tiles, products, 4);
    else
      multiply<false, 1>(weight, tokens, tiles, products, 4);
    return finish_tile(products, 0);
  }
  const int token_tiles = static_cast<int>((rows + kTileRows - 1) / kTileRows);
  for (int tile = 0; tile < token_tiles; tile += 2) {
    const bool pair = tile + 1 < token_tiles;
    const TileSource tokens{
        {packed(block, tile), packed(block, tile + (pair ? 1 : 0))}, kTileRowBytes, kTileBytes};
    const auto run = pair ? (integer_ ? multiply<true, 2> : multiply<false, 2>)
                          : (integer_ ? multiply<true, 1> : multiply<false, 1>);
    run(weight, tokens, tiles, products, kTileRowBytes);
    finish_tile(products, tile);
    if (pair) finish_tile(products + 256, tile + 1);
  }
}

// The units of one thread: contiguous, so that it reads contiguous weights.
struct UnitRange {
  UnitRange(std::int64_t units, int thread, int threads)
      : begin(units * thread / threads), end(units * (thread + 1) / threads) {}
  std::int64_t begin, end;
};

std::int64_t clamp_rows(std::int64_t rows) {
  return std::clamp<std::int64_t>(rows, 0, kTileRows);
}

}  // namespace

void amx_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                const CpuLinearWeight& weight, CpuMatrix& out) {
  AmxProduct product(buffers, in, weight);
  const std::int64_t columns = weight.rows(), units = (columns + 31) / 32;
  pool.run([&](int thread) {
    configure_tiles(in.rows() == 1);
    const UnitRange mine(units, thread, pool.threads());
    for (std::int64_t first = 0; first < in.rows(); first += kChunkRows) {
      const std::int64_t rows = std::min(kChunkRows, in.rows() - first);
      if (first > 0) buffers.barrier.wait();
      product.pack(first, rows, thread, pool.threads());
      if (in.rows() > 1) buffers.barrier.wait();
      const bool few = rows <= kTileRows;
      const auto multiply = [&](std::int64_t u, std::int64_t block) {
        const std::int64_t row = 32 * u;
        const Unit unit{{row, row + 16}, {clamp_rows(columns - row), clamp_rows(columns - row - 16)}};
        product.multiply_unit(unit, block, first, rows, few, out.row(first) + row, columns, {0, 16},
                              buffers.threads[static_cast<std::size_t>(thread)]);
      };
      if (few) {  // the weights are read in the order of memory
        for (std::int64_t u = mine.begin; u < mine.end; ++u)
          for (std::int64_t block = 0; block < product.blocks(); ++block) multiply(u, block);
      } else {  // the packed rows of a block stay in the cache
        for (std::int64_t block = 0; block < product.blocks(); ++block)
          for (std::int64_t u = mine.begin; u < mine.end; ++u) multiply(u, block);
      }
    }
    release_tiles();
  });
}

void amx_gated_linear(ThreadPool& pool, LinearScratch::Buffers& buffers, const CpuLinearInput& in,
                      const CpuLinearWeight& gate_up, CpuLinearInput& out) {
  AmxProduct product(buffers, in, gate_up);
  const std::int64_t columns = gate_up.rows() / 2, units = (columns + 15) / 16;
  // The packed rows of all columns stay in the cache while a thread passes over its units.
  constexpr std::int64_t kCacheBytes = 1 << 20;
  const std::int64_t chunk =
      std::clamp<std::int64_t>(kCacheBytes / (in.columns() * 2) / 32 * 32, 64, kChunkRows);
  pool.run([&](int thread) {
    configure_tiles(in.rows() == 1);
    auto& scratch = buffers.threads[static_cast<std::size_t>(thread)];
    const UnitRange mine(units, thread, pool.threads());
    for (std::int64_t first = 0; first < in.rows(); first += chunk) {
      const std::int64_t rows = std::min(chunk, in.rows() - first);
      product.pack(first, rows, thread, pool.threads());
      if (in.rows() > 1) buffers.barrier.wait();
      for (std::int64_t u = mine.begin; u < mine.end; ++u) {
        const std::int64_t row = 16 * u, count = clamp_rows(columns - row);
        const Unit unit{{row, columns + row}, {count, count}};
        float* sums = scratch.sums.data();
        for (std::int64_t block = 0; block < product.blocks(); ++block)
          product.multiply_unit(unit, block, first, rows, rows <= kTileRows, sums, 32, {0, 16}, scratch);
        for (std::int64_t r = 0; r < rows; ++r)
          gate_columns<SimdAvx512>(sums + 32 * r, sums + 32 * r + 16, out.staging(r) + row, count);
      }
      buffers.barrier.wait();
      const std::int64_t begin = rows * thread / pool.threads(), end = rows * (thread + 1) / pool.threads();
      for (std::int64_t r = begin; r < end; ++r) out.encode_row(first + r, out.staging(r));
      if (first + chunk < in.rows()) buffers.barrier.wait();
    }
    release_tiles();
  });
}

}  // namespace bise
