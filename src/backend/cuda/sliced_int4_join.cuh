// The end of a block of sliced_int4.cuh and of digit_int4.cu: the blocks of a tile join their sums, and each
// writes a share of the results.
#pragma once

#include "backend/cuda/sliced_int4_task.cuh"

namespace bise::cuda {

// Waits until all blocks of the tile have left their sums.
__device__ inline void join_blocks(const SlicedInt4Task& task, int tile) {
  int* arrivals = task.arrivals + 2 * tile;
  sync_threads_of(1, kInt4Consumers);
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(arrivals, 1);
    int arrived;
    do {
      asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(arrived) : "l"(arrivals) : "memory");
    } while (arrived < task.chains);
    // Those that have seen all count, too, and the last one leaves zeros.
    if (atomicAdd(arrivals + 1, 1) == task.chains - 1) arrivals[0] = arrivals[1] = 0;
  }
  sync_threads_of(1, kInt4Consumers);
}

// Four sums of all chains, each `part` floats behind the one before.
__device__ inline float4 sum_of_chains(const float* at, int part, int chains) {
  constexpr int kTogether = 4;  // loads under way
  float4 sum = {};
  for (int begin = 0; begin < chains; begin += kTogether) {
    float4 parts[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i)
      if (begin + i < chains) parts[i] = __ldcg(reinterpret_cast<const float4*>(at + (begin + i) * part));
#pragma unroll
    for (int i = 0; i < kTogether; ++i)
      if (begin + i < chains)
        sum.x += parts[i].x, sum.y += parts[i].y, sum.z += parts[i].z, sum.w += parts[i].w;
  }
  return sum;
}

// Joins, scales and writes the chain's share of the tile's rows, four at a time.
__device__ inline void write_share(const SlicedInt4Task& task, const Int4Work& work, const float* all) {
  const int tile_rows = task.row_blocks * 64, part = task.rows * tile_rows;
  const int width = task.gated ? tile_rows / 2 : tile_rows, quads = width / 4;
  const int first = work.chain * quads / task.chains, share = (work.chain + 1) * quads / task.chains - first;
  // `weight_row` counts through both halves.
  const auto finished = [&](float value, int weight_row) {
    if (task.weight_scales) value *= task.weight_scales[weight_row];
    if (task.bias) value += task.bias[weight_row];
    return value;
  };
  for (int i = threadIdx.x; i < task.rows * share; i += kInt4Consumers) {
    const int row = i / share, column = (first + i % share) * 4;
    const float* at = all + row * tile_rows + column;
    const float4 sums = sum_of_chains(at, part, task.chains);
    const float4 ups = task.gated ? sum_of_chains(at + width, part, task.chains) : float4{};
    const float values[4] = {sums.x, sums.y, sums.z, sums.w}, up_values[4] = {ups.x, ups.y, ups.z, ups.w};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int weight_row = work.tile * width + column + k;
      if (weight_row >= task.half_rows) continue;
      float value = finished(values[k], weight_row);
      if (task.gated)
        value = value / (1.f + expf(-value)) * finished(up_values[k], task.half_rows + weight_row);
      const std::int64_t to = row * task.out_stride + weight_row;
      if (task.out.type == Float::kBf16)
        store_value(static_cast<bf16*>(task.out.data) + to, value);
      else
        store_value(static_cast<float*>(task.out.data) + to, value);
    }
  }
}

}  // namespace bise::cuda
