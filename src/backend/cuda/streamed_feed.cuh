// The thread of a block of streamed_kernel.cuh that brings weights and inputs into the ring of shared memory.
#pragma once

#include "backend/cuda/hopper.cuh"
#include "backend/cuda/streamed_task.cuh"

namespace bise::cuda {

// One thread. Weights that fit the ring are fetched while earlier kernels, which make the inputs, still run.
template <bool kPanels, int kN>
__device__ void feed(const StreamedTask& task, char* ring, Barriers& barriers, int first, int last) {
  using L = StreamedLayout<kPanels, kN>;
  prefetch_map(&task.input_tiles);
  const std::uint64_t often = read_often_policy();
  const std::uint64_t weight_policy = task.row_tiles == 1 ? read_once_policy() : often;
  const int columns = kPanels ? 64 : 128 / task.value_bytes;  // of a box
  const auto fetch_weights = [&](int item, int stage) {
    std::uint64_t* full = barriers.full + stage;
    const int weight_tile = item / task.chunks / task.row_tiles, chunk = item % task.chunks;
    char* to = ring + stage * task.stage_bytes + L::kInputBytes;
    if constexpr (kPanels) {
      const int half_blocks = task.half_rows / 64 + (task.half_rows % 64 != 0);
      int blocks = 0;
#pragma unroll
      for (int group = 0; group < L::kGroups; ++group)
        blocks += group_row<L>(weight_tile, group, task) / 64 < half_blocks;
      const auto block_bytes = static_cast<std::uint32_t>(task.panels.block_bytes);
      barrier_expect_bytes(full, L::kInputBytes + static_cast<std::uint32_t>(blocks) * block_bytes);
#pragma unroll
      for (int group = 0; group < L::kGroups; ++group) {
        const int block = group_row<L>(weight_tile, group, task) / 64;
        if (block >= half_blocks) continue;
        const std::int64_t at =
            static_cast<std::int64_t>(half_of<L>(group, task) * half_blocks + block) * task.chunks + chunk;
        copy_bytes(to + group * block_bytes, static_cast<const char*>(task.panels.data) + at * block_bytes,
                   block_bytes, full, weight_policy);
      }
    } else {
      barrier_expect_bytes(full, L::kInputBytes + L::kGroups * 64 * 128);
#pragma unroll
      for (int group = 0; group < L::kGroups; ++group)
        copy_tile(to + group * 64 * 128, &task.weight_tiles, chunk * columns,
                  half_of<L>(group, task) * task.half_rows + group_row<L>(weight_tile, group, task), full,
                  weight_policy);
    }
  };
  const auto fetch_inputs = [&](int item, int stage) {
    const int row = item / task.chunks % task.row_tiles * kN, chunk = item % task.chunks;
    char* to = ring + stage * task.stage_bytes;
    constexpr int kBoxes = kPanels ? 2 : 1;
#pragma unroll
    for (int box = 0; box < kBoxes; ++box)
      copy_tile(to + box * L::kInputBoxBytes, &task.input_tiles, (chunk * kBoxes + box) * columns, row,
                barriers.full + stage, often);
  };
  const int ahead = min(task.stages, last - first);
  for (int use = 0; use < ahead; ++use) fetch_weights(first + use, use);
  wait_for_earlier_kernels();
  for (int use = 0; use < ahead; ++use) fetch_inputs(first + use, use);
  RingPlace place;
  for (int item = first + ahead; item < last; ++item) {
    barrier_wait(barriers.empty + place.stage, place.parity);
    fetch_weights(item, place.stage);
    fetch_inputs(item, place.stage);
    place.advance(task.stages);
  }
}

}  // namespace bise::cuda
