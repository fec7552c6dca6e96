// The warps of a block of prompt_attention.cu that bring keys and values into shared memory.
#pragma once

#include "backend/cuda/prompt_attention_work.cuh"

namespace bise::cuda {

// A warp's lanes have one box each of a tile's keys or values: 64 columns of a block's rows.
template <int kDim>
class PromptBoxes {
 public:
  __device__ PromptBoxes(const AttentionTask& task, const PromptWork& work, const CUtensorMap& map)
      : work_(work),
        map_(map),
        blocks_(task.step.block_table +
                (work.span.sequence * task.step.groups + task.group) * task.step.blocks_per_sequence),
        shift_(task.block_shift),
        rows_(min(1 << shift_, kPromptKeys / 2)),
        row_(lane() / L::kHalves * rows_) {
    find(work.first_tile);
  }

  // Asks for the boxes of `tile` that a row sees, those of tiles one after another.
  __device__ void fetch(int tile, char* to, std::uint64_t* full) {
    const int key = tile * kPromptKeys + row_, half = lane() % L::kHalves, slot = slot_;
    find(tile + 1);
    const bool is_seen = row_ < kPromptKeys && key + rows_ > work_.visible && key <= work_.last_position;
    const int boxes = __popc(__ballot_sync(~0u, is_seen));
    if (lane() == 0) barrier_expect_bytes(full, boxes * rows_ * 128);
    __syncwarp();
    if (is_seen)
      copy_tile(to + half * L::kHalfBytes + row_ * 128, &map_, work_.kv_head * kDim + half * 64, slot, full,
                read_often_policy());
    __syncwarp();
  }

 private:
  using L = PromptLayout<kDim>;
  static __device__ int lane() { return threadIdx.x % 32; }
  // Looked up one tile ahead.
  __device__ void find(int tile) {
    const int key = min(max(tile * kPromptKeys + row_, work_.visible), work_.last_position);
    slot_ = (blocks_[key >> shift_] << shift_) + (key & ((1 << shift_) - 1)) / rows_ * rows_;
  }

  const PromptWork& work_;
  const CUtensorMap& map_;
  const std::int32_t* blocks_;
  int shift_, rows_, row_;
  int slot_;  // of the cache, where the lane's next box begins
};

// Brings keys or values, by one warp: tiles [stages] of `map`, whose barriers are these.
template <int kDim>
__device__ void produce_tiles(const AttentionTask& task, const CUtensorMap& map, int stages, char* tiles,
                              std::uint64_t* landed, std::uint64_t* empty, PromptRings& rings) {
  RingPlace at, tile_at;
  for (;; at.advance(kPromptWorks)) {
    const PromptWork work = next_prompt_work(rings, at);
    if (work.span.count == 0) return;
    PromptBoxes<kDim> boxes(task, work, map);
    wait_for_earlier_kernels();
    for (int tile = work.first_tile; tile <= work.last_tile; ++tile, tile_at.advance(stages)) {
      barrier_wait(empty + tile_at.stage, tile_at.parity ^ 1);
      boxes.fetch(tile, tiles + tile_at.stage * PromptLayout<kDim>::kTileBytes, landed + tile_at.stage);
    }
  }
}

// One warp.
template <int kDim>
__device__ void clear_values(PromptTiles<kDim> tiles, PromptRings& rings) {
  constexpr int kChunks = kDim / 8;
  const int lane = threadIdx.x % 32;
  RingPlace at, value_at;
  for (;; at.advance(kPromptWorks)) {
    const PromptWork work = next_prompt_work(rings, at);
    if (work.span.count == 0) return;
    for (int tile = work.first_tile; tile <= work.last_tile; ++tile, value_at.advance(kPromptValueTiles)) {
      barrier_wait(rings.landed_values + value_at.stage, value_at.parity);
      const auto clear = [&](int row, int end) {
        for (row += lane / kChunks; row < end; row += 32 / kChunks)
          *reinterpret_cast<uint4*>(tiles.values(value_at.stage) + prompt_chunk(row, lane % kChunks)) = {
              0, 0, 0, 0};
      };
      const int begin = work.visible - tile * kPromptKeys, end = work.last_position + 1 - tile * kPromptKeys;
      if (begin > 0 || end < kPromptKeys) {
        clear(0, begin);
        clear(end, kPromptKeys);
        writes_visible_to_products();
        __syncwarp();
      }
      if (lane == 0) barrier_arrive(rings.values.full + value_at.stage);
    }
  }
}

}  // namespace bise::cuda
