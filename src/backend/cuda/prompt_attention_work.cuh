// What blocks of prompt_attention.cu compute (PromptWork), how they lay out shared memory (PromptLayout,
// PromptTiles), and by what their warps wait for each other (PromptRings).
#pragma once

#include "backend/cuda/attention_task.cuh"

namespace bise::cuda {

constexpr int kPromptKeys = 128;  // of a tile
constexpr int kPromptConsumers = 256;
// A tile's values are given back when those of the next are multiplied, its keys before it is weighed.
constexpr int kPromptWorks = 2, kPromptKeyTiles = 2, kPromptValueTiles = 3;

template <int kDim>
struct PromptLayout {
  static constexpr int kHalves = kDim / 64;             // of 128 bytes, as wide as a swizzled row
  static constexpr int kHalfBytes = kPromptKeys * 128;  // of a tile of keys, values or queries
  static constexpr int kTileBytes = kHalves * kHalfBytes;
  static constexpr int kBytes = (kPromptWorks + kPromptKeyTiles + kPromptValueTiles) * kTileBytes + 1024;
};
static_assert(kPromptRows == kPromptKeys);

// What a block computes: queries of one KV head, over tiles [first_tile, last_tile] of keys. Without queries
// when no work is left.
struct PromptWork {
  Span span;
  int kv_head, first_position, last_position;
  int visible;  // the first key that any row sees
  int first_tile, last_tile;
};

template <int kStages>
struct PromptRing {
  std::uint64_t full[kStages], empty[kStages];
};
struct PromptRings {
  PromptRing<kPromptWorks> works, queries;
  PromptRing<kPromptKeyTiles> keys;
  PromptRing<kPromptValueTiles> values;
  std::uint64_t landed_queries[kPromptWorks];      // full once they are turned
  std::uint64_t landed_values[kPromptValueTiles];  // full once rows that are not seen are zeros
  PromptWork work[kPromptWorks];
};
template <int kDim>
struct PromptTiles {
  char* first;
  __device__ char* queries(int stage) const { return first + stage * PromptLayout<kDim>::kTileBytes; }
  __device__ char* keys(int stage) const { return queries(kPromptWorks + stage); }
  __device__ char* values(int stage) const { return keys(kPromptKeyTiles + stage); }
};

// The block's next work, for all lanes of a warp.
__device__ inline PromptWork next_prompt_work(PromptRings& rings, const RingPlace& at) {
  barrier_wait(rings.works.full + at.stage, at.parity);
  const PromptWork work = rings.work[at.stage];
  __syncwarp();
  if (threadIdx.x % 32 == 0) barrier_arrive(rings.works.empty + at.stage);
  return work;
}

// Where 16 bytes of row `row` and column chunk `chunk` of 8 values stand in a tile.
__device__ inline int prompt_chunk(int row, int chunk) {
  return chunk / 8 * kPromptKeys * 128 + row * 128 + ((chunk % 8 ^ row % 8) << 4);
}

}  // namespace bise::cuda
