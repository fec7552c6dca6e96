// What a block of wide_panels.cu has to do (WideTask, WidePlace, WideRows), and how it shares itself out
// among warpgroups, registers and shared memory (WideLayout, WideBarriers).
#pragma once

#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/hopper.cuh"

namespace bise::cuda {

constexpr int kMostWideGroups = 3, kMostWideStages = 8;

// Work is dealt to clusters: a tile of the weight of all their blocks and a tile of the input.
struct WideTask {
  CUtensorMap input_tiles;  // of half an input tile's rows
  Int4Panels panels;
  int rows;              // of the input and the output
  int half_rows;         // columns of the output; of the weight, half of its rows where gated
  int half_blocks;       // the same in blocks of 64
  int chunks;            // of 128 columns
  int row_tiles, tiles;  // of the input, and of all
  int splits;            // of the columns; all their blocks run at once
  int sharing;           // blocks of a cluster: 2 where gated, else 1
  int gated;
  int stages, stage_bytes;
  const float *weight_scales, *bias;
  Values out;
  std::int64_t out_stride;
  float* partial;  // [blocks][groups][sums of a thread / 4][128 threads][4]
  int* arrivals;   // [tiles][sharing][groups][2]: warpgroups whose sums are there, and that have joined them
};

// kGroups warpgroups multiply; one more feeds them. A stage of the ring has 128 columns: two boxes of 64
// columns of the inputs, then the warpgroups' panels.
template <int kN_, int kGroups_>
struct WideLayout {
  static constexpr int kN = kN_, kGroups = kGroups_;
  static constexpr int kConsumers = kGroups * 128, kThreads = kConsumers + 128;
  static constexpr int kSums = kN / 2;  // of a thread
  static constexpr int kBoxBytes = kN * 128, kInputBytes = 2 * kBoxBytes;
  // Of a multiprocessor's 65536 registers. In 32 the producer's loop would keep some of its values in memory.
  static constexpr int kConsumerRegisters = kGroups == 3 ? 152 : 232;
  static constexpr int kProducerRegisters = kGroups == 3 ? 56 : 40;
  // Gated: the sums that a warpgroup gets from another.
  static constexpr int kPartBytes = kSums / 2 * 128 * 4;
};

struct WideBarriers {
  std::uint64_t full[kMostWideStages], empty[kMostWideStages];
  // Gated, of a warpgroup: the other's sums are there; the other has read what it got.
  std::uint64_t parts[kMostWideGroups], taken[kMostWideGroups];
};

// A block's place in the work.
struct WidePlace {
  int share;              // of the cluster's blocks
  int cluster, clusters;  // counting tiles and, in them, splits
  int split;
  int first_chunk, count;  // of the columns

  __device__ explicit WidePlace(const WideTask& task) {
    share = cluster_rank();
    cluster = static_cast<int>(blockIdx.x) / task.sharing;
    clusters = static_cast<int>(gridDim.x) / task.sharing;
    split = cluster % task.splits;
    first_chunk = task.chunks * split / task.splits;
    count = task.chunks * (split + 1) / task.splits - first_chunk;
  }
  __device__ int tile(int round, const WideTask& task) const {
    return (cluster + round * clusters) / task.splits;
  }
  __device__ int rounds(const WideTask& task) const {
    return (task.tiles * task.splits - cluster + clusters - 1) / clusters;
  }
};

// What a warpgroup's 64 rows are: the block of 64 within the half, and the half. Blocks from half_blocks on
// are not there.
struct WideRows {
  int block, half;
};
template <class L>
__device__ inline WideRows wide_rows_of(int tile, int share, int group, const WideTask& task) {
  const int index = (tile / task.row_tiles * task.sharing + share) * L::kGroups + group;
  if (task.gated) return {index / 2, index % 2};
  return {index, 0};
}

}  // namespace bise::cuda
