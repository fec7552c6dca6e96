// Attention on AMX tiles over a kTiles cache. Scores and results are taken transposed, so that keys and
// values go from the cache into A tiles as they stand:
//
//   S^T [keys, columns] = K [keys, dims] Q^T       O^T [dims, columns] += V^T [dims, keys] P^T
//
// A column is a lane of the vectors between the two products: the softmax runs down the keys, 16 columns at
// a time, and writes P as the pairs of keys that a B tile holds. The reference maximum of a column moves only
// when a score exceeds it by kSlack, so the running result is rarely rescaled.
//
// Q and P are bfloat16, sums float32. Keys are taken in steps of kStepKeys absolute positions; hidden keys
// have weight 0 and change nothing, so a column's result does not depend on the columns beside it.
//
// A cache of e4m3 has the same layout with half the bytes; a step's keys and values are widened to bfloat16
// (exactly, times kLoadedE4M3) beside the scores before they are multiplied.

// g++ 12's own headers leave the operand of masked intrinsics uninitialized.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "backend/cpu/attention_amx.h"

#include <immintrin.h>

#include <algorithm>

#include "backend/cpu/amx_tiles.h"
#include "backend/cpu/transpose_avx512.h"
#include "tensor/float_types.h"

#pragma GCC target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16,avx512vbmi")
#include "backend/cpu/simd_avx512.h"

namespace bise {
namespace {

constexpr std::int64_t kLanes = 16, kMaxTiles = 2, kMaxColumns = kLanes * kMaxTiles;
constexpr std::int64_t kGroupKeys = 32, kStepKeys = 64, kStepGroups = kStepKeys / kGroupKeys;
constexpr std::int64_t kTileFloats = 256, kTileRowBytes = 64;
constexpr float kNoMaximum = -1e30f, kSlack = 8;
static_assert(kChunkKeys % kStepKeys == 0);

// 2^x for x <= 127 to 9e-5, far below the rounding to bfloat16; exactly 1 at 0, 0 at -infinity.
__m512 weight_of(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, 1);  // x - floor(x)
  __m512 p = _mm512_set1_ps(0.0770670399f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.227644995f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.695116758f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, x);
}

// Where things stand in a kernel's scratch and state.
struct Workspace {
  float* queries;  // [tiles][dim_tiles] B tiles
  float* scores;   // [tiles][kStepKeys][kLanes]; then the weights [tiles][groups] as B tiles in their place
  float* widened;  // of an e4m3 cache: [groups][32][dim_tiles * 32] keys, then [groups][head_dim][32] values
  float *maximum, *sum;              // [kMaxColumns]
  float* values;                     // [tiles][head_dim][kLanes]
  std::int64_t head_dim, dim_tiles;  // dim_tiles of 32

  Workspace(std::int64_t head_dim, float* scratch, float* state)
      : queries(scratch),
        scores(scratch + kMaxTiles * ((head_dim + 31) / 32) * kTileFloats),
        widened(scores + kMaxTiles * kStepKeys * kLanes),
        maximum(state),
        sum(state + kMaxColumns),
        values(state + 2 * kMaxColumns),
        head_dim(head_dim),
        dim_tiles((head_dim + 31) / 32) {}
  const std::byte* query_tile(int tile, std::int64_t dims) const {
    return reinterpret_cast<const std::byte*>(queries + (tile * dim_tiles + dims) * kTileFloats);
  }
  float* tile_scores(int tile) const { return scores + tile * kStepKeys * kLanes; }
  const std::byte* weight_tile(int tile, std::int64_t group) const {
    return reinterpret_cast<const std::byte*>(tile_scores(tile) + group * kTileFloats);
  }
  float* tile_values(int tile) const { return values + tile * head_dim * kLanes; }
};

// Groups [0, groups) of 32 keys that follow one another from position first_key.
struct Keys {
  std::int64_t first_key, groups;
  const std::byte* keys[kStepGroups];
  const std::byte* values[kStepGroups];
  std::int64_t key_stride, value_stride;  // bytes
};

// `bytes` of an element of the cache.
Keys keys_of_step(const CachedKeys& cached, std::int64_t bytes, std::int64_t begin, std::int64_t end) {
  Keys step{};
  step.first_key = begin / kGroupKeys * kGroupKeys;
  step.groups = (end - step.first_key + kGroupKeys - 1) / kGroupKeys;
  step.key_stride = cached.dim_stride * bytes;
  step.value_stride = cached.block_size * bytes;
  for (std::int64_t g = 0; g < step.groups; ++g) {
    const std::int64_t key = step.first_key + g * kGroupKeys, slot = key % cached.block_size;
    step.keys[g] = cached.block_keys(key / cached.block_size) + slot * step.key_stride;
    step.values[g] = cached.block_values(key / cached.block_size) + slot * bytes;
  }
  return step;
}

// 32 codes to bfloat16: the sign to the top, exponent and fraction to where a half float has them.
void widen(const std::byte* codes, std::byte* out) {
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes));
  const __m512i moved = _mm512_srai_epi16(_mm512_slli_epi16(_mm512_cvtepu8_epi16(bytes), 8), 1);
  const __m512i half = _mm512_and_si512(moved, _mm512_set1_epi16(static_cast<short>(0xbf80)));
  const __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(half));
  const __m512 high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(half, 1));
  _mm512_store_si512(out, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

// Lets `step` point at bfloat16 copies of its keys and values.
void widen_step(const CachedKeys& cached, const Workspace& work, Keys& step) {
  const std::int64_t dims = work.dim_tiles * 32;
  auto* out = reinterpret_cast<std::byte*>(work.widened);
  for (std::int64_t g = 0; g < step.groups; ++g) {
    const std::byte* keys = step.keys[g];
    step.keys[g] = out;
    for (std::int64_t key = 0; key < kGroupKeys; ++key)
      for (std::int64_t d = 0; d < dims; d += 32, out += 64) widen(keys + key * cached.dim_stride + d, out);
    const std::byte* values = step.values[g];
    step.values[g] = out;
    for (std::int64_t d = 0; d < work.head_dim; ++d, out += 64) widen(values + d * cached.block_size, out);
  }
  step.key_stride = dims * 2;
  step.value_stride = kGroupKeys * 2;
}

// scores = K Q^T. Tiles: 0-3 results [half of the group][query tile], 4-5 keys, 6-7 queries.
template <int kTiles>
void multiply_keys(const Keys& step, const Workspace& work) {
  for (std::int64_t g = 0; g < step.groups; ++g) {
    zero_tile<0>();
    zero_tile<1>();
    if constexpr (kTiles == 2) {
      zero_tile<2>();
      zero_tile<3>();
    }
    const std::byte* keys = step.keys[g];
    for (std::int64_t d = 0; d < work.dim_tiles; ++d) {
      load_tile<6>(work.query_tile(0, d), kTileRowBytes);
      load_tile<4>(keys + d * 64, step.key_stride);
      multiply_tiles<false, 0, 4, 6>();
      load_tile<5>(keys + 16 * step.key_stride + d * 64, step.key_stride);
      multiply_tiles<false, 1, 5, 6>();
      if constexpr (kTiles == 2) {
        load_tile<7>(work.query_tile(1, d), kTileRowBytes);
        multiply_tiles<false, 2, 4, 7>();
        multiply_tiles<false, 3, 5, 7>();
      }
    }
    float* scores = work.tile_scores(0) + g * kGroupKeys * kLanes;
    store_tile<0>(scores, kTileRowBytes);
    store_tile<1>(scores + 16 * kLanes, kTileRowBytes);
    if constexpr (kTiles == 2) {
      scores = work.tile_scores(1) + g * kGroupKeys * kLanes;
      store_tile<2>(scores, kTileRowBytes);
      store_tile<3>(scores + 16 * kLanes, kTileRowBytes);
    }
  }
}

// O^T += V^T P^T. Tiles: 0-3 results [16 dims of two][query tile], 4-5 values, 6-7 weights.
template <int kTiles>
void multiply_values(const Keys& step, const Workspace& work) {
  for (std::int64_t d = 0; d < work.head_dim; d += 32) {
    const bool pair = d + 16 < work.head_dim;
    float* first = work.tile_values(0) + d * kLanes;
    float* second = work.tile_values(kTiles - 1) + d * kLanes;
    load_tile<0>(reinterpret_cast<const std::byte*>(first), kTileRowBytes);
    if (pair) load_tile<1>(reinterpret_cast<const std::byte*>(first + kTileFloats), kTileRowBytes);
    if constexpr (kTiles == 2) {
      load_tile<2>(reinterpret_cast<const std::byte*>(second), kTileRowBytes);
      if (pair) load_tile<3>(reinterpret_cast<const std::byte*>(second + kTileFloats), kTileRowBytes);
    }
    for (std::int64_t g = 0; g < step.groups; ++g) {
      const std::byte* values = step.values[g] + d * step.value_stride;
      load_tile<6>(work.weight_tile(0, g), kTileRowBytes);
      load_tile<4>(values, step.value_stride);
      multiply_tiles<false, 0, 4, 6>();
      if (pair) {
        load_tile<5>(values + 16 * step.value_stride, step.value_stride);
        multiply_tiles<false, 1, 5, 6>();
      }
      if constexpr (kTiles == 2) {
        load_tile<7>(work.weight_tile(1, g), kTileRowBytes);
        multiply_tiles<false, 2, 4, 7>();
        if (pair) multiply_tiles<false, 3, 5, 7>();
      }
    }
    store_tile<0>(first, kTileRowBytes);
    if (pair) store_tile<1>(first + kTileFloats, kTileRowBytes);
    if constexpr (kTiles == 2) {
      store_tile<2>(second, kTileRowBytes);
      if (pair) store_tile<3>(second + kTileFloats, kTileRowBytes);
    }
  }
}

// Which keys the 16 columns of a tile see.
struct Visibility {
  __m512i last, hidden;           // keys in (hidden, last]
  std::int64_t from_all, to_all;  // every column sees the keys in [from_all, to_all)

  Visibility(const QueryTile& tile, std::int64_t first_column) {
    alignas(64) std::int32_t position[kLanes];
    const std::int64_t columns = std::min(kLanes, tile.columns - first_column);
    std::int64_t at = tile.position(first_column), head = (tile.first_column + first_column) % tile.group;
    for (std::int64_t c = 0; c < kLanes; ++c) {
      position[c] = c < columns ? static_cast<std::int32_t>(at) : -1;
      if (++head == tile.group) head = 0, ++at;
    }
    const auto window = static_cast<std::int32_t>(std::min<std::int64_t>(tile.window, INT32_MAX / 2));
    last = _mm512_load_si512(position);
    hidden = _mm512_sub_epi32(last, _mm512_set1_epi32(window));
    to_all = tile.position(first_column) + 1;
    from_all = std::max<std::int64_t>(0, tile.position(first_column + columns - 1) - window + 1);
  }
};

void hide_keys(const Visibility& visible, std::int64_t first_key, std::int64_t keys, float* scores) {
  const __m512 hidden = _mm512_set1_ps(-__builtin_inff());
  for (std::int64_t k = 0; k < keys; ++k) {
    const __m512i key = _mm512_set1_epi32(static_cast<std::int32_t>(first_key + k));
    const __mmask16 seen =
        _mm512_cmple_epi32_mask(key, visible.last) & _mm512_cmpgt_epi32_mask(key, visible.hidden);
    const __m512 score = _mm512_load_ps(scores + k * kLanes);
    _mm512_store_ps(scores + k * kLanes, _mm512_mask_mov_ps(hidden, seen, score));
  }
}

// Moves the columns' reference to the scores' maximum where they exceed it by kSlack.
__m512 move_reference(const float* scores, std::int64_t keys, float* maximum, float* sum, float* values,
                      std::int64_t head_dim) {
  __m512 largest[4];
  for (int i = 0; i < 4; ++i) largest[i] = _mm512_load_ps(scores + i * kLanes);
  for (std::int64_t k = 4; k < keys; k += 4)
    for (int i = 0; i < 4; ++i)
      largest[i] = _mm512_max_ps(largest[i], _mm512_load_ps(scores + (k + i) * kLanes));
  const __m512 top =
      _mm512_max_ps(_mm512_max_ps(largest[0], largest[1]), _mm512_max_ps(largest[2], largest[3]));
  const __m512 old = _mm512_load_ps(maximum);
  const __mmask16 moves = _mm512_cmp_ps_mask(top, _mm512_add_ps(old, _mm512_set1_ps(kSlack)), _CMP_GT_OQ);
  if (!moves) return old;
  const __m512 moved = _mm512_mask_mov_ps(old, moves, top);
  const __m512 kept = SimdAvx512::exp2(_mm512_sub_ps(old, moved));
  _mm512_store_ps(maximum, moved);
  _mm512_store_ps(sum, _mm512_mul_ps(_mm512_load_ps(sum), kept));
  for (std::int64_t d = 0; d < head_dim; ++d)
    _mm512_store_ps(values + d * kLanes, _mm512_mul_ps(_mm512_load_ps(values + d * kLanes), kept));
  return moved;
}

// Scores of one query tile to weights in B tiles, row r of a group holding its keys 2r and 2r + 1: half the
// size, so that they take the place of scores that have been read.
void soften(const Visibility& visible, const Keys& step, const Workspace& work, int tile) {
  const std::int64_t keys = step.groups * kGroupKeys;
  float* scores = work.tile_scores(tile);
  if (step.first_key < visible.from_all || step.first_key + keys > visible.to_all)
    hide_keys(visible, step.first_key, keys, scores);
  float* sum = work.sum + tile * kLanes;
  const __m512 reference =
      move_reference(scores, keys, work.maximum + tile * kLanes, sum, work.tile_values(tile), work.head_dim);
  // Interleaves the 16 values of one key with those of the next.
  alignas(64) static constexpr std::uint16_t kInterleave[32] = {0,  16, 1,  17, 2,  18, 3,  19, 4,  20, 5,
                                                                21, 6,  22, 7,  23, 8,  24, 9,  25, 10, 26,
                                                                11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  const __m512i interleave = _mm512_load_si512(kInterleave);
  __m512 even_sum = _mm512_setzero_ps(), odd_sum = _mm512_setzero_ps();
  for (std::int64_t k = 0; k < keys; k += 2) {
    const __m512 even = weight_of(_mm512_sub_ps(_mm512_load_ps(scores + k * kLanes), reference));
    const __m512 odd = weight_of(_mm512_sub_ps(_mm512_load_ps(scores + (k + 1) * kLanes), reference));
    even_sum = _mm512_add_ps(even_sum, even);
    odd_sum = _mm512_add_ps(odd_sum, odd);
    const auto pairs = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
    _mm512_store_si512(scores + k / 2 * kLanes, _mm512_permutexvar_epi16(interleave, pairs));
  }
  _mm512_store_ps(sum, _mm512_add_ps(_mm512_load_ps(sum), _mm512_add_ps(even_sum, odd_sum)));
}

template <int kTiles, bool kFloat8>
void attend_steps(const QueryTile& tile, const CachedKeys& cached, std::int64_t begin, std::int64_t end,
                  const Workspace& work) {
  const Visibility first(tile, 0), second(tile, (kTiles - 1) * kLanes);
  while (begin < end) {
    const std::int64_t step_end = std::min(end, begin / kStepKeys * kStepKeys + kStepKeys);
    Keys step = keys_of_step(cached, kFloat8 ? 1 : 2, begin, step_end);
    if constexpr (kFloat8) widen_step(cached, work, step);
    multiply_keys<kTiles>(step, work);
    soften(first, step, work, 0);
    if constexpr (kTiles == 2) soften(second, step, work, 1);
    multiply_values<kTiles>(step, work);
    begin = step_end;
  }
}

template <bool kFloat8>
class TileAttention final : public AttentionKernel {
 public:
  TileAttention() {
    for (int tile = 0; tile < 8; ++tile) config_.set(tile, 16, kTileRowBytes);
  }

  std::int64_t max_columns() const override { return kMaxColumns; }
  std::int64_t scratch_floats(const KvCacheShape& cache) const override {
    const std::int64_t dim_tiles = (cache.head_dim + 31) / 32;
    const std::int64_t widened = kStepKeys * (dim_tiles * 32 + cache.head_dim) / 2;
    return kMaxTiles * (dim_tiles * kTileFloats + kStepKeys * kLanes) + (kFloat8 ? widened : 0);
  }
  std::int64_t state_floats(const KvCacheShape& cache) const override {
    return kMaxColumns * (2 + cache.head_dim);
  }

  // Dword r of a column's 32 dims is the pair (2r, 2r + 1); B tiles have a row per pair.
  void pack(const QueryTile& tile, float scale, const CachedKeys&, float* scratch) const override {
    const Workspace work(tile.head_dim, scratch, nullptr);
    const __m512 factor = _mm512_set1_ps(scale);
    for (std::int64_t first = 0; first < tile.columns; first += kLanes) {
      const std::int64_t columns = std::min(kLanes, tile.columns - first);
      const float* queries[kLanes];
      for (std::int64_t c = 0; c < columns; ++c) queries[c] = tile.query(first + c);
      for (std::int64_t d = 0; d < work.dim_tiles; ++d) {
        const bool whole = d * 32 + 16 < tile.head_dim;
        __m512i rows[kLanes];
        for (std::int64_t c = 0; c < kLanes; ++c) {
          rows[c] = _mm512_setzero_si512();
          if (c >= columns) continue;
          const __m512 low = _mm512_mul_ps(_mm512_loadu_ps(queries[c] + d * 32), factor);
          const __m512 high =
              whole ? _mm512_mul_ps(_mm512_loadu_ps(queries[c] + d * 32 + 16), factor) : _mm512_setzero_ps();
          rows[c] = (__m512i)_mm512_cvtne2ps_pbh(high, low);
        }
        transpose_16x16(rows);
        float* out = work.queries + (first / kLanes * work.dim_tiles + d) * kTileFloats;
        for (std::int64_t r = 0; r < kLanes; ++r) _mm512_store_si512(out + r * kLanes, rows[r]);
      }
    }
  }

  void reset(const QueryTile& tile, float* state) const override {
    std::fill_n(state, kMaxColumns, kNoMaximum);
    std::fill_n(state + kMaxColumns, kMaxColumns, 0.0f);
    std::fill_n(state + 2 * kMaxColumns, used_tiles(tile) * kLanes * tile.head_dim, 0.0f);
  }

  void attend(const QueryTile& tile, const CachedKeys& keys, std::int64_t begin, std::int64_t end,
              float* scratch, float* state) const override {
    const Workspace work(tile.head_dim, scratch, state);
    load_tile_config(config_);
    if (used_tiles(tile) == 1) {
      attend_steps<1, kFloat8>(tile, keys, begin, end, work);
    } else {
      attend_steps<2, kFloat8>(tile, keys, begin, end, work);
    }
    release_tiles();
  }

  void merge(const QueryTile& tile, const float* chunk, float* total) const override {
    for (std::int64_t t = 0; t < used_tiles(tile); ++t) {
      const std::int64_t lanes = t * kLanes;
      const __m512 mine = _mm512_load_ps(total + lanes), other = _mm512_load_ps(chunk + lanes);
      const __m512 maximum = _mm512_max_ps(mine, other);
      const __m512 kept = SimdAvx512::exp2(_mm512_sub_ps(mine, maximum));
      const __m512 added = SimdAvx512::exp2(_mm512_sub_ps(other, maximum));
      _mm512_store_ps(total + lanes, maximum);
      merge_rows(chunk + kMaxColumns + lanes, 1, kept, added, total + kMaxColumns + lanes);
      const std::int64_t values = 2 * kMaxColumns + t * tile.head_dim * kLanes;
      merge_rows(chunk + values, tile.head_dim, kept, added, total + values);
    }
  }

  void finish(const QueryTile& tile, const float* total) const override {
    for (std::int64_t first = 0; first < tile.columns; first += kLanes) {
      const __m512 inverse =
          _mm512_div_ps(_mm512_set1_ps(tile.value_scale), _mm512_load_ps(total + kMaxColumns + first));
      const std::int64_t columns = std::min(kLanes, tile.columns - first);
      const float* values = total + 2 * kMaxColumns + first * tile.head_dim;
      std::int64_t results[kLanes];
      for (std::int64_t c = 0; c < columns; ++c) results[c] = tile.result(first + c);
      for (std::int64_t d = 0; d < tile.head_dim; d += kLanes) {
        __m512i rows[kLanes];
        for (std::int64_t r = 0; r < kLanes; ++r)
          rows[r] = _mm512_castps_si512(_mm512_mul_ps(_mm512_load_ps(values + (d + r) * kLanes), inverse));
        transpose_16x16(rows);
        if (bf16* out = tile.rounded_out) {
          for (std::int64_t c = 0; c < columns; ++c)
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + results[c] + d),
                                (__m256i)_mm512_cvtneps_pbh(_mm512_castsi512_ps(rows[c])));
        } else {
          for (std::int64_t c = 0; c < columns; ++c) _mm512_storeu_si512(tile.out + results[c] + d, rows[c]);
        }
      }
    }
  }
  bool rounds() const override { return true; }

 private:
  static std::int64_t used_tiles(const QueryTile& tile) { return (tile.columns + kLanes - 1) / kLanes; }

  static void merge_rows(const float* chunk, std::int64_t rows, __m512 kept, __m512 added, float* total) {
    for (std::int64_t r = 0; r < rows * kLanes; r += kLanes)
      _mm512_store_ps(total + r, _mm512_fmadd_ps(_mm512_load_ps(chunk + r), added,
                                                 _mm512_mul_ps(_mm512_load_ps(total + r), kept)));
  }

  TileConfig config_;
};

}  // namespace

std::unique_ptr<AttentionKernel> make_tile_attention(DType dtype) {
  if (dtype == DType::kF8E4M3) return std::make_unique<TileAttention<true>>();
  return std::make_unique<TileAttention<false>>();
}

}  // namespace bise
