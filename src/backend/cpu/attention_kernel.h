// Attention in float32 vectors over a kVectors cache, for every instruction set. Include inside its target
// region. A score is a column's dot product with a vector of keys; a result is a vector of dimensions.
#pragma once

#include <cstdint>

#include "backend/cpu/attention.h"

namespace bise {

template <class Simd, class Element>
class VectorAttention final : public AttentionKernel {
  using Vec = typename Simd::Vec;
  static constexpr std::int64_t kColumns = 16;
  static constexpr int kRows = Simd::kTileRows;  // columns that share a load of keys or values
  static constexpr float kNoMaximum = -1e30f, kHidden = -__builtin_inff();

  // state: maximum [kColumns], sum [kColumns], values [kColumns][head_dim]
  static float* values_of(float* state, std::int64_t column, std::int64_t head_dim) {
    return state + 2 * kColumns + column * head_dim;
  }
  static const float* values_of(const float* state, std::int64_t column, std::int64_t head_dim) {
    return state + 2 * kColumns + column * head_dim;
  }

 public:
  std::int64_t max_columns() const override { return kColumns; }
  // queries [kColumns][head_dim], scores [kColumns][slot_stride]
  std::int64_t scratch_floats(const KvCacheShape& cache) const override {
    return kColumns * (cache.head_dim + (cache.block_size + 15) / 16 * 16);
  }
  std::int64_t state_floats(const KvCacheShape& cache) const override {
    return kColumns * (2 + cache.head_dim);
  }

  void pack(const QueryTile& tile, float scale, const CachedKeys&, float* scratch) const override {
    const Vec factor = Simd::set(scale);
    for (std::int64_t c = 0; c < tile.columns; ++c)
      for (std::int64_t d = 0; d < tile.head_dim; d += Simd::kWidth)
        Simd::store(scratch + c * tile.head_dim + d, Simd::mul(Simd::load(tile.query(c) + d), factor));
  }

  void reset(const QueryTile& tile, float* state) const override {
    for (std::int64_t c = 0; c < kColumns; ++c) state[c] = kNoMaximum;
    for (std::int64_t i = kColumns; i < kColumns * (2 + tile.head_dim); ++i) state[i] = 0;
  }

  void attend(const QueryTile& tile, const CachedKeys& keys, std::int64_t begin, std::int64_t end,
              float* scratch, float* state) const override {
    float* scores = scratch + kColumns * tile.head_dim;
    for (std::int64_t block = begin / keys.block_size; block * keys.block_size < end; ++block) {
      const std::int64_t base = block * keys.block_size;
      const std::int64_t first = begin > base ? begin - base : 0;  // the slots in use
      const std::int64_t last = end - base < keys.block_size ? end - base : keys.block_size;
      for (std::int64_t c = 0; c < tile.columns;) {
        const std::int64_t left = tile.columns - c;
        const Step step{tile, keys, block, c, first, last, scratch, scores, state};
        c += left >= kRows ? attend_rows<kRows>(step)
             : left >= 4   ? attend_rows<4>(step)
             : left == 3   ? attend_rows<3>(step)
             : left == 2   ? attend_rows<2>(step)
                           : attend_rows<1>(step);
      }
    }
  }

  void merge(const QueryTile& tile, const float* chunk, float* total) const override {
    for (std::int64_t c = 0; c < tile.columns; ++c) {
      const float maximum = total[c] > chunk[c] ? total[c] : chunk[c];
      const float kept = power(total[c] - maximum), added = power(chunk[c] - maximum);
      total[c] = maximum;
      total[kColumns + c] = total[kColumns + c] * kept + chunk[kColumns + c] * added;
      float* values = values_of(total, c, tile.head_dim);
      const float* more = values_of(chunk, c, tile.head_dim);
      for (std::int64_t d = 0; d < tile.head_dim; d += Simd::kWidth)
        Simd::store(values + d, Simd::fma(Simd::load(more + d), Simd::set(added),
                                          Simd::mul(Simd::load(values + d), Simd::set(kept))));
    }
  }

  void finish(const QueryTile& tile, const float* total) const override {
    for (std::int64_t c = 0; c < tile.columns; ++c) {
      const Vec inverse = Simd::set(tile.value_scale / total[kColumns + c]);
      for (std::int64_t d = 0; d < tile.head_dim; d += Simd::kWidth)
        Simd::store(tile.out + tile.result(c) + d,
                    Simd::mul(Simd::load(values_of(total, c, tile.head_dim) + d), inverse));
    }
  }

 private:
  // Columns [column, column + R) against the slots [first, last) of a block.
  struct Step {
    const QueryTile& tile;
    const CachedKeys& keys;
    std::int64_t block, column, first, last;
    const float* queries;
    float* scores;
    float* state;
  };

  static float power(float x) { return Simd::max_lane(Simd::exp2(Simd::set(x))); }

  // Returns R.
  template <int R>
  static int attend_rows(const Step& step) {
    score<R>(step);
    float kept[R];
    for (int r = 0; r < R; ++r) kept[r] = soften(step, step.column + r);
    add_values<R>(step, kept);
    return R;
  }

  template <int R>
  static void score(const Step& step) {
    const std::int64_t head_dim = step.tile.head_dim, stride = step.keys.slot_stride;
    const auto* keys = reinterpret_cast<const Element*>(step.keys.block_keys(step.block));
    const float* queries = step.queries + step.column * head_dim;
    constexpr std::int64_t kSpan = 2 * Simd::kWidth;
    for (std::int64_t slot = step.first / 16 * 16; slot < step.last; slot += kSpan) {
      // slot_stride is a multiple of 16: a second vector may hang over the last one.
      const std::int64_t second = slot + Simd::kWidth < stride ? Simd::kWidth : 0;
      Vec sums[R][2];
      for (int r = 0; r < R; ++r) sums[r][0] = sums[r][1] = Simd::zero();
      for (std::int64_t d = 0; d < head_dim; ++d) {
        const Vec a = Simd::load(keys + d * stride + slot), b = Simd::load(keys + d * stride + slot + second);
        for (int r = 0; r < R; ++r) {
          const Vec q = Simd::set(queries[r * head_dim + d]);
          sums[r][0] = Simd::fma(a, q, sums[r][0]);
          sums[r][1] = Simd::fma(b, q, sums[r][1]);
        }
      }
      for (int r = 0; r < R; ++r) {
        float* scores = step.scores + (step.column + r) * stride + slot;
        Simd::store(scores + second, sums[r][1]);
        Simd::store(scores, sums[r][0]);
      }
    }
  }

  // Scores to weights 2^(score - maximum), with zeros where the column does not see the key. Returns the
  // factor for what the state holds.
  static float soften(const Step& step, std::int64_t column) {
    const std::int64_t stride = step.keys.slot_stride;
    const std::int64_t begin = step.first / 16 * 16, end = (step.last + 15) / 16 * 16;
    const std::int64_t position = step.tile.position(column) - step.block * step.keys.block_size;
    std::int64_t from = position < step.tile.window ? 0 : position - step.tile.window + 1;
    if (from < step.first) from = step.first;
    const std::int64_t to = position + 1 < step.last ? position + 1 : step.last;
    float* scores = step.scores + column * stride;
    for (std::int64_t slot = begin; slot < end && slot < from; ++slot) scores[slot] = kHidden;
    for (std::int64_t slot = to > begin ? to : begin; slot < end; ++slot) scores[slot] = kHidden;

    Vec largest = Simd::set(step.state[column]);
    for (std::int64_t slot = begin; slot < end; slot += Simd::kWidth)
      largest = Simd::max(largest, Simd::load(scores + slot));
    const float maximum = Simd::max_lane(largest);
    const float kept = power(step.state[column] - maximum);
    const Vec reference = Simd::set(maximum);
    // One sum per lane of the block's 16: extra vectors of hidden keys add zeros.
    Vec sum = Simd::zero();
    for (std::int64_t slot = begin; slot < end; slot += Simd::kWidth) {
      const Vec weight = Simd::exp2(Simd::sub(Simd::load(scores + slot), reference));
      Simd::store(scores + slot, weight);
      sum = Simd::add(sum, weight);
    }
    step.state[column] = maximum;
    step.state[kColumns + column] = step.state[kColumns + column] * kept + Simd::sum(sum);
    return kept;
  }

  template <int R>
  static void add_values(const Step& step, const float* kept) {
    const std::int64_t head_dim = step.tile.head_dim, stride = step.keys.slot_stride;
    const auto* values = reinterpret_cast<const Element*>(step.keys.block_values(step.block));
    const float* weights = step.scores + step.column * stride;
    constexpr std::int64_t kSpan = 2 * Simd::kWidth;
    for (std::int64_t d = 0; d < head_dim; d += kSpan) {
      const std::int64_t second = d + Simd::kWidth < head_dim ? Simd::kWidth : 0;
      Vec sums[R][2];
      for (int r = 0; r < R; ++r) {
        const float* state = values_of(step.state, step.column + r, head_dim) + d;
        sums[r][0] = Simd::mul(Simd::load(state), Simd::set(kept[r]));
        sums[r][1] = Simd::mul(Simd::load(state + second), Simd::set(kept[r]));
      }
      for (std::int64_t slot = step.first; slot < step.last; ++slot) {
        const Vec a = Simd::load(values + slot * head_dim + d);
        const Vec b = Simd::load(values + slot * head_dim + d + second);
        for (int r = 0; r < R; ++r) {
          const Vec weight = Simd::set(weights[r * stride + slot]);
          sums[r][0] = Simd::fma(a, weight, sums[r][0]);
          sums[r][1] = Simd::fma(b, weight, sums[r][1]);
        }
      }
      for (int r = 0; r < R; ++r) {
        float* state = values_of(step.state, step.column + r, head_dim) + d;
        Simd::store(state + second, sums[r][1]);
        Simd::store(state, sums[r][0]);
      }
    }
  }
};

}  // namespace bise
