// What blocks of tile_attention.cu compute (TileWork), how they share it out among warps and registers and
// lay out shared memory (TileLayout), and by what their warps wait for each other (TileRings).
#pragma once

#include <type_traits>

#include "backend/cuda/attention_task.cuh"

namespace bise::cuda {

constexpr int kTileKeys = 64, kGroupRows = 64;
constexpr int kSplitKeys = 512, kSplitTiles = kSplitKeys / kTileKeys;
constexpr int kTileProducers = 128;
constexpr int kTileWorks = 2;  // that a block knows of at once

// kGroups warpgroups of rows, heads of kDim dimensions, a cache of C.
template <int kGroups, int kDim, class C>
struct TileLayout {
  static constexpr bool kDividesContext = kGroups == 1;  // its parts are joined by another block
  static constexpr bool kConverts = std::is_same_v<C, std::uint8_t>;
  static constexpr int kHeadDim = kDim;
  static constexpr int kBlocks = kDividesContext ? 2 : 1;  // of a multiprocessor
  static constexpr int kThreads = kGroups * 128 + kTileProducers;
  [[maybe_unused]] static constexpr int kRows = kGroups * kGroupRows;
  static constexpr int kHalves = kDim / 64;           // of 128 bytes, as wide as a swizzled row
  static constexpr int kHalfBytes = kTileKeys * 128;  // of a tile of keys or values in bf16
  static constexpr int kTileBytes = kHalves * kHalfBytes;
  static constexpr int kStages = !kDividesContext ? 4 : kConverts ? 2 : 3;
  // Tiles as the copy engine brings them: codes have a ring of their own.
  static constexpr int kLandings = kConverts ? 2 : kStages;
  static constexpr int kLandedBytes = kConverts ? kTileKeys * kDim : kTileBytes;
  static constexpr int kFinishers = kConverts ? 3 : 1;                        // warps
  static constexpr int kJoinedFloats = kDividesContext ? 0 : kDim / 2 * 128;  // of a warpgroup
  static constexpr int kRingBytes = kStages * 2 * kTileBytes;
  static constexpr int kCodeBytes = kConverts ? kLandings * 2 * kLandedBytes : 0;
  static constexpr int kBytes = kRingBytes + kCodeBytes + kGroups * kJoinedFloats * 4 + 1024;
  // Registers of a thread; a multiprocessor has 65536, shared by two blocks where the context is divided.
  static constexpr int kConsumerRegisters = kDividesContext ? 184 : 216;
  static constexpr int kProducerRegisters = kDividesContext ? 64 : 72;
};

// What a block computes: a span of queries of one KV head, over tiles [first_tile, last_tile] of keys.
// Without queries when no work is left.
struct TileWork {
  Span span;
  int kv_head, first_position, last_position;
  int visible;  // the first key that any row sees
  int first_tile, last_tile;
  int split, parts;  // of a divided context: the block's own, counted from the first, and how many
};

template <class L>
struct TileRings {
  std::uint64_t works_full[kTileWorks], works_empty[kTileWorks];
  std::uint64_t landed[L::kLandings], taken[L::kLandings];  // taken: of codes
  std::uint64_t full[L::kStages], empty[L::kStages];
  TileWork work[kTileWorks];
};

// The `index`-th of task.works; without queries where there is none. All lanes of a warp ask, those for
// divided contexts each for its own.
template <class L>
__device__ inline TileWork find_tile_work(const AttentionTask& task, int index) {
  TileWork work = {};
  const int kv_heads = static_cast<int>(task.cache.num_kv_heads);
  if (index >= task.works) return work;
  if constexpr (L::kDividesContext) {
    const int pairs = static_cast<int>(task.step.sequences) * kv_heads, s = index % pairs / kv_heads;
    work.split = index / pairs;
    if (!is_divided(task, s)) return work;
    work.span = {s, task.step.query_starts[s], task.step.query_starts[s + 1] - task.step.query_starts[s]};
  } else {
    // The last queries of a prompt, which see the most keys, come first.
    work.span = find_span(task, (task.works - 1 - index) / kv_heads, L::kRows / task.heads);
  }
  if (work.span.count == 0) return work;
  work.kv_head = index % kv_heads;
  work.first_position = task.step.positions[work.span.first];
  work.last_position = work.first_position + work.span.count - 1;
  work.visible = task.sliding_window > 0 ? max(0, work.first_position - task.sliding_window + 1) : 0;
  work.first_tile = work.visible / kTileKeys;
  work.last_tile = work.last_position / kTileKeys;
  if constexpr (L::kDividesContext) {
    const int first_split = work.visible / kSplitKeys, split = first_split + work.split;
    work.parts = work.last_position / kSplitKeys - first_split + 1;
    work.first_tile = max(work.first_tile, split * kSplitTiles);
    work.last_tile = min(work.last_tile, (split + 1) * kSplitTiles - 1);
    if (work.split >= work.parts) work.span.count = 0;
  }
  return work;
}

// The next of the block's works, for all lanes of a warp.
template <class L>
__device__ inline TileWork next_tile_work(TileRings<L>& rings, RingPlace& at) {
  barrier_wait(rings.works_full + at.stage, at.parity);
  const TileWork work = rings.work[at.stage];
  __syncwarp();
  if (threadIdx.x % 32 == 0) barrier_arrive(rings.works_empty + at.stage);
  at.advance(kTileWorks);
  return work;
}

}  // namespace bise::cuda
