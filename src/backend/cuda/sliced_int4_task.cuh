// What a launch of sliced_int4.cuh or digit_int4.cu has to do, and which piece of it a block has.
#pragma once

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/int4_panels.h"
#include "backend/cuda/sliced_int4.h"

namespace bise::cuda {

constexpr int kInt4Columns = 128;                                // of a chunk
constexpr int kUnitRows = 16, kUnitBytes = 512;                  // of 64 columns
constexpr int kInt4Warps = 8, kInt4Consumers = kInt4Warps * 32;  // that multiply
constexpr int kMostInt4Stages = 24;
constexpr int kInt4Alignment = 1024;  // of tiles of the input, which are swizzled

struct SlicedInt4Task {
  CUtensorMap input_tiles;
  Int4Panels panels;
  int rows, row_box;           // of the input; as many as a tile of it has
  int half_rows, half_blocks;  // of the weight, one by one and by 64; of its halves where gated
  int gated;                   // joins gate and up
  int chunks;                  // of a row
  int row_blocks;              // of a tile, half of them up's where gated
  int tiles, chains;
  int stages, stage_bytes;
  const float *weight_scales, *bias;
  Values out;
  std::int64_t out_stride;
  float* partial;      // [tiles][chains][rows, row_blocks * 64]
  int* arrivals;       // [tiles][2], see join_blocks()
  const bf16* inputs;  // what input_tiles are of, [rows, chunks * kInt4Columns]
};

// A block's tile, and its chain's chunks.
struct Int4Work {
  int tile, chain, first, last;
};
__device__ inline Int4Work work_of(const SlicedInt4Task& task) {
  const int block = static_cast<int>(blockIdx.x), chain = block % task.chains;
  return {block / task.chains, chain, chain * task.chunks / task.chains,
          (chain + 1) * task.chunks / task.chains};
}

// Where a unit's block of panels lies in a stage, and which of its rows are the thread's: this one and 8
// further.
struct UnitPlace {
  int block, row;
};

// By the input's rows: digit_int4.cu for up to kDigitInt4Rows, sliced_int4.cuh for up to 8 and 16. One .cu
// file each: they are compiled beside each other.
void start_digit_int4(const SlicedInt4Task& task, int blocks, int bytes, cudaStream_t stream);
void start_sliced_int4_8(const SlicedInt4Task& task, int blocks, int bytes, cudaStream_t stream);
void start_sliced_int4_16(const SlicedInt4Task& task, int blocks, int bytes, cudaStream_t stream);

}  // namespace bise::cuda
