// The thread of a block of wide_panels.cu that brings weights and inputs into the ring of shared memory.
#pragma once

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/wide_panels_task.cuh"

namespace bise::cuda {

// The panels of a block's warpgroups, chunk after chunk.
template <class L>
struct WidePanelWalk {
  const char* from[L::kGroups];  // null: not there
  std::uint32_t bytes;           // of all

  __device__ WidePanelWalk(const WideTask& task, const WidePlace& own, int tile) : bytes(0) {
#pragma unroll
    for (int group = 0; group < L::kGroups; ++group) {
      const WideRows rows = wide_rows_of<L>(tile, own.share, group, task);
      const bool is_there = rows.block < task.half_blocks;
      const std::int64_t block = rows.half * task.half_blocks + rows.block;
      from[group] = is_there ? static_cast<const char*>(task.panels.data) +
                                   (block * task.chunks + own.first_chunk) * task.panels.block_bytes
                             : nullptr;
      bytes += is_there ? task.panels.block_bytes : 0;
    }
  }
  // Into a stage, whose inputs it announces too.
  __device__ void fetch(const WideTask& task, char* stage, std::uint64_t* full, std::uint64_t policy) {
    const auto block_bytes = static_cast<std::uint32_t>(task.panels.block_bytes);
    barrier_expect_bytes(full, L::kInputBytes + bytes);
#pragma unroll
    for (int group = 0; group < L::kGroups; ++group) {
      if (!from[group]) continue;
      copy_bytes(stage + L::kInputBytes + group * block_bytes, from[group], block_bytes, full, policy);
      from[group] += block_bytes;
    }
  }
};

// The input rows from `row`, 128 columns from `column`; of a pair's block its half of the rows, for both.
template <class L>
__device__ inline void fetch_wide_inputs(const WideTask& task, const WidePlace& own, int column, int row,
                                         char* stage, std::uint64_t* full, std::uint64_t policy) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int half = i % 2;
    char* to = stage + i / 2 * L::kBoxBytes + half * (L::kBoxBytes / 2);
    if (task.sharing == 1)
      copy_tile(to, &task.input_tiles, column + i / 2 * 64, row + half * (L::kN / 2), full, policy);
    else if (half == own.share)
      copy_tile_to(3, to, &task.input_tiles, column + i / 2 * 64, row + half * (L::kN / 2), full, policy);
  }
}

// One thread; its time for a chunk must stay below the tensor cores'. Weights for the empty ring are fetched
// while earlier kernels, which make the inputs, still run.
template <class L>
__device__ void feed_wide(const WideTask& task, const WidePlace& own, char* ring, WideBarriers& barriers) {
  prefetch_map(&task.input_tiles);
  const std::uint64_t often = read_often_policy();
  const std::uint64_t weight_policy = task.row_tiles == 1 ? read_once_policy() : often;
  const int rounds = own.rounds(task), ahead = min(task.stages, own.count);
  RingPlace place;
  for (int round = 0; round < rounds; ++round) {
    const int tile = own.tile(round, task), row = tile % task.row_tiles * L::kN;
    WidePanelWalk<L> panels(task, own, tile);
    int fetched = 0;
    if (round == 0) {
      for (; fetched < ahead; ++fetched)
        panels.fetch(task, ring + fetched * task.stage_bytes, barriers.full + fetched, weight_policy);
      wait_for_earlier_kernels();
    }
    for (int chunk = 0; chunk < own.count; ++chunk, place.advance(task.stages)) {
      char* stage = ring + place.stage * task.stage_bytes;
      std::uint64_t* full = barriers.full + place.stage;
      // At once where the stage is used for the first time.
      barrier_wait(barriers.empty + place.stage, place.parity ^ 1);
      if (chunk >= fetched) panels.fetch(task, stage, full, weight_policy);
      fetch_wide_inputs<L>(task, own, (own.first_chunk + chunk) * 128, row, stage, full, often);
    }
  }
}

}  // namespace bise::cuda
