// What a launch of streamed_kernel.cuh has to do (StreamedTask), how its blocks share themselves out among
// warpgroups, registers and shared memory (StreamedLayout, Barriers), and which pieces of the work they have.
#pragma once

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/scaled_panels.cuh"
#include "backend/cuda/streamed_linear.h"

namespace bise::cuda {

constexpr int kMostStages = 24;

struct StreamedTask {
  CUtensorMap weight_tiles, input_tiles;
  Int4Panels panels;                   // instead of weight_tiles
  int value_bytes;                     // of other operands
  int rows;                            // of the input and the output
  int tiles, row_tiles, chunks;        // of the weight, of the input, and of a row's bytes
  int blocks;                          // at most the work items, so that each has one
  int items_per_block, longer_blocks;  // the first so many have one more
  int half_rows;                       // of the weight; half of them where it joins gate and up
  int gated;
  int stages, stage_bytes;
  const float *in_scales, *weight_scales, *bias;
  Values out;
  std::int64_t out_stride;
  void* partial;  // [blocks, 2, kMostPartialSums]
  int* arrivals;  // [tiles * row_tiles][2]: parts that are there, blocks that have joined them
};

// kGroups warpgroups multiply, each 64 rows of the weight's tile; one more feeds them. A chunk is 128 bytes
// of a weight's and an input's row, or 128 columns of int4 panels.
template <bool kPanels, int kN>
struct StreamedLayout {
  static constexpr int kGroups = kPanels && kN <= 64 ? 4 : 2;
  static constexpr int kConsumers = kGroups * 128, kThreads = kConsumers + 128;
  static constexpr int kArrivals = kGroups * (kPanels ? kPanelArrivals : 1);  // before a stage is free
  static constexpr int kTileRows = kGroups * 64;
  static constexpr int kInputBoxBytes = kN * 128, kInputBytes = kInputBoxBytes * (kPanels ? 2 : 1);
  static constexpr int kSums = kN / 2;  // of a thread
  static_assert(kSums * kConsumers <= kMostPartialSums);
  // Inputs of panels are bf16, without scales.
  static constexpr bool kHasInputScales = !kPanels;
  // Of a multiprocessor's 65536 registers.
  static constexpr int kConsumerRegisters = kGroups == 4 ? 112 : 232;
  static constexpr int kProducerRegisters = kGroups == 4 ? 32 : 40;
  static constexpr int kExchangeBytes = kConsumers / 2 * kSums * 4;  // gated: of up's sums
};

// The first work item of a block.
__device__ inline int first_item(int block, const StreamedTask& task) {
  return block * task.items_per_block + min(block, task.longer_blocks);
}

// The block whose piece holds `item`.
__device__ inline int block_of(int item, const StreamedTask& task) {
  const int longer_items = task.longer_blocks * (task.items_per_block + 1);
  if (item < longer_items) return item / (task.items_per_block + 1);
  return task.longer_blocks + (item - longer_items) / task.items_per_block;
}

// The first weight row, within its half, of a warpgroup's 64 in a tile of the weight.
template <class L>
__device__ inline int group_row(int weight_tile, int group, const StreamedTask& task) {
  if (task.gated) return (weight_tile * (L::kGroups / 2) + group % (L::kGroups / 2)) * 64;
  return (weight_tile * L::kGroups + group) * 64;
}
template <class L>
__device__ inline int half_of(int group, const StreamedTask& task) {
  return task.gated && group >= L::kGroups / 2;
}

struct Barriers {
  std::uint64_t full[kMostStages], empty[kMostStages];
};

}  // namespace bise::cuda
