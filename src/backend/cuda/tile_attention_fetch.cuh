// The warp of a block of tile_attention.cu that finds its works and asks the copy engine for their tiles of
// keys and values.
#pragma once

#include "backend/cuda/tile_attention_work.cuh"

namespace bise::cuda {

// One warp: finds works and asks for the boxes of their tiles, each 64 columns (all of codes) of a block's
// keys or values. A lane has one box of a tile: lane i that of rows i / (2 kColumns), columns i / 2 %
// kColumns.
template <class L>
class TileProducer {
 public:
  __device__ TileProducer(const AttentionTask& task, char* landings, TileRings<L>& rings)
      : task_(task), landings_(landings), rings_(rings) {}

  __device__ void run() {
    // Works without queries are passed over 32 at a time.
    constexpr int kLanes = L::kDividesContext ? 32 : 1;
    const int blocks = static_cast<int>(gridDim.x);
    for (int base = static_cast<int>(blockIdx.x); base < task_.works; base += kLanes * blocks) {
      const bool is_there = find_tile_work<L>(task_, base + lane() % kLanes * blocks).span.count > 0;
      for (unsigned left = __ballot_sync(~0u, is_there && lane() < kLanes); left; left &= left - 1) {
        const TileWork work = find_tile_work<L>(task_, base + (__ffs(static_cast<int>(left)) - 1) * blocks);
        publish(work);
        fetch(work);
      }
    }
    publish({});
  }

 private:
  static constexpr int kColumns = L::kConverts ? 1 : L::kHalves;
  static __device__ int lane() { return threadIdx.x % 32; }

  __device__ void publish(const TileWork& work) {
    barrier_wait(rings_.works_empty + at_.stage, at_.parity ^ 1);  // at first of a phase before the first
    if (lane() == 0) {
      rings_.work[at_.stage] = work;
      barrier_arrive(rings_.works_full + at_.stage);
    }
    __syncwarp();
    at_.advance(kTileWorks);
  }

  __device__ void fetch(const TileWork& work) {
    const std::int32_t* blocks =
        task_.step.block_table +
        (work.span.sequence * task_.step.groups + task_.group) * task_.step.blocks_per_sequence;
    const int shift = task_.block_shift, rows = min(1 << shift, kTileKeys);
    const int row = lane() / (2 * kColumns) * rows, column = lane() / 2 % kColumns;
    const bool is_value = lane() % 2;
    const auto slot_of = [&](int tile) {
      const int key = min(max(tile * kTileKeys + row, work.visible), work.last_position);
      return (blocks[key >> shift] << shift) + (key & ((1 << shift) - 1)) / rows * rows;
    };
    int next = slot_of(work.first_tile);  // looked up one tile ahead
    for (int tile = work.first_tile; tile <= work.last_tile; ++tile, landing_.advance(L::kLandings)) {
      const int key = tile * kTileKeys + row, slot = next;
      if (tile < work.last_tile) next = slot_of(tile + 1);
      // Keys of the step itself were stored by the kernel before this one, or are yet to come.
      if (!task_.stores_keys && (tile + 1) * kTileKeys > work.first_position) wait_for_earlier_kernels();
      barrier_wait((L::kConverts ? rings_.taken : rings_.empty) + landing_.stage, landing_.parity ^ 1);
      std::uint64_t* landed = rings_.landed + landing_.stage;
      const bool is_seen = row < kTileKeys && key + rows > work.visible && key <= work.last_position;
      const int boxes = __popc(__ballot_sync(~0u, is_seen));
      if (lane() == 0) barrier_expect_bytes(landed, boxes * (L::kLandedBytes / kColumns / kTileKeys) * rows);
      __syncwarp();
      if (is_seen) {
        char* to = landings_ + (2 * landing_.stage + is_value) * L::kLandedBytes + column * L::kHalfBytes +
                   row * (L::kConverts ? L::kHeadDim : 128);
        // Blocks of the same sequence read them again, but for those that divide its context.
        copy_tile(to, is_value ? &task_.value_tiles : &task_.key_tiles,
                  work.kv_head * L::kHeadDim + column * 64, slot, landed,
                  L::kDividesContext ? read_once_policy() : read_often_policy());
      }
      __syncwarp();
    }
  }

  const AttentionTask& task_;
  char* landings_;
  TileRings<L>& rings_;
  RingPlace at_, landing_;
};

}  // namespace bise::cuda
