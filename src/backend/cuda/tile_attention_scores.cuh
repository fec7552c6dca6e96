// Scores, online softmax and weighted values of a warpgroup of tile_attention.cu over a span of tiles.
#pragma once

#include "backend/cuda/tile_attention_queries.cuh"

namespace bise::cuda {

// The rows of a thread, `warp row + lane / 4` and 8 further down.
struct TileRows {
  int position[2];  // the last key each sees
  bool any;         // whether the warp has a row at all
};

// Scores to weights of base 2: hides what a row does not see, moves the maxima, adds to the sums. `keep`
// gets what earlier sums are multiplied with.
__device__ inline void weigh_tile(float (&scores)[32], const AttentionTask& task, const TileRows& rows,
                                  int tile, bool hides, float (&m)[2], float (&l)[2], float (&keep)[2]) {
  const int t = threadIdx.x % 4;
  if (hides) {
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int half = i / 2 % 2, key = tile * kTileKeys + i / 4 * 8 + 2 * t + i % 2;
      const int position = rows.position[half];
      if (key > position || (task.sliding_window > 0 && key <= position - task.sliding_window))
        scores[i] = -INFINITY;
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = scores[2 * half];
#pragma unroll
    for (int i = 0; i < 16; ++i) largest = fmaxf(largest, scores[i / 2 * 4 + 2 * half + i % 2]);
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
    const float next = fmaxf(m[half], largest * task.scale);
    const float base = next == -INFINITY ? 0.f : next;
    keep[half] = power_of_two(m[half] - base);
    m[half] = next;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& score = scores[i / 2 * 4 + 2 * half + i % 2];
      score = power_of_two(__fmaf_rn(score, task.scale, -base));
      sum += score;
    }
    l[half] = __fmaf_rn(l[half], keep[half], sum);
  }
}

template <class L>
__device__ inline void pack_tile_weights(const float (&scores)[32], std::uint32_t (&weights)[16]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) weights[i] = operand_pair<L>(scores[2 * i], scores[2 * i + 1]);
}

// Attention of a warpgroup's rows over tiles [first, end), the first of which is at `at` in the ring. Leaves
// sums that are not yet divided by l.
template <class L>
__device__ void attend_to_tiles(const AttentionTask& task, const TileWork& work, const TileRows& rows,
                                TileQueries<L>& queries, const char* ring, TileRings<L>& rings, RingPlace& at,
                                int first, int end, float (&sums)[L::kHalves][32], float (&m)[2],
                                float (&l)[2]) {
  float scores[32], keep[2];
  std::uint32_t weights[16] = {};
  const auto multiply_keys = [&](int stage) {
    const std::uint32_t k = tile_descriptor(ring + stage * 2 * L::kTileBytes);
#pragma unroll
    for (int step = 0; step < L::kHalves * 4; ++step)
      TileProduct<L, false>::add(scores, queries.pairs[step],
                                 k + step / 4 * (L::kHalfBytes >> 4) + step % 4 * 2, step > 0);
    products_commit();
  };
  const auto multiply_values = [&](int stage, bool adds) {
    const char* values = ring + stage * 2 * L::kTileBytes + L::kTileBytes;
#pragma unroll
    for (int half = 0; half < L::kHalves; ++half) {
      const std::uint32_t v = transposed_tile_descriptor(values + half * L::kHalfBytes);
#pragma unroll
      for (int step = 0; step < 4; ++step)
        TileProduct<L, true>::add(sums[half], weights + 4 * step, v + step * (2048 >> 4), adds || step > 0);
    }
    products_commit();
  };
  // Rows of the block see different keys where the tile reaches beyond the first row's position or begins
  // before what the last row's window leaves.
  const auto hides = [&](int tile) {
    return (tile + 1) * kTileKeys - 1 > work.first_position ||
           (task.sliding_window > 0 && tile * kTileKeys <= work.last_position - task.sliding_window);
  };
  const auto hold_sums = [&] {
#pragma unroll
    for (int half = 0; half < L::kHalves; ++half) hold(sums[half]);
  };
  const bool signals = threadIdx.x % 128 == 0;

  barrier_wait(rings.full + at.stage, at.parity);
  products_begin();
  multiply_keys(at.stage);
  products_wait<0>();
  hold(scores);
  if (rows.any) {
    weigh_tile(scores, task, rows, first, hides(first), m, l, keep);
    pack_tile_weights<L>(scores, weights);
  }
  for (int tile = first + 1; tile < end; ++tile) {
    const int before = at.stage;
    at.advance(L::kStages);
    barrier_wait(rings.full + at.stage, at.parity);
    hold(weights);
    hold(scores);
    hold_sums();
    products_begin();
    multiply_keys(at.stage);
    multiply_values(before, tile > first + 1);
    products_wait<1>();
    hold(scores);
    if (rows.any) weigh_tile(scores, task, rows, tile, hides(tile), m, l, keep);
    products_wait<0>();
    hold_sums();
    hold(weights);
    if (signals) barrier_arrive(rings.empty + before);
    if (rows.any) {
      // Maxima seldom move after the first tiles.
      if (__any_sync(~0u, keep[0] != 1 || keep[1] != 1)) {
#pragma unroll
        for (int half = 0; half < L::kHalves; ++half)
#pragma unroll
          for (int i = 0; i < 32; ++i) sums[half][i] *= keep[i / 2 % 2];
      }
      pack_tile_weights<L>(scores, weights);
    }
  }
  hold(weights);
  hold_sums();
  products_begin();
  multiply_values(at.stage, end > first + 1);
  products_wait<0>();
  hold_sums();
  if (signals) barrier_arrive(rings.empty + at.stage);
  at.advance(L::kStages);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    l[half] += __shfl_xor_sync(~0u, l[half], 1);
    l[half] += __shfl_xor_sync(~0u, l[half], 2);
  }
}

}  // namespace bise::cuda
