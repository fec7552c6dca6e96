// How blocks of streamed_kernel.cuh that have a part each of a tile's columns add up their sums.
#pragma once

#include "backend/cuda/streamed_output.cuh"

namespace bise::cuda {

// The blocks that share a tile. All but a last one that has further tiles join the parts, each a share of
// them, once they have nothing else to do.
struct Chain {
  int first, parts, joining;
};
__device__ inline Chain chain_of(int tile, const StreamedTask& task) {
  const int end = (tile + 1) * task.chunks, first = block_of(tile * task.chunks, task);
  const int last = block_of(end - 1, task), parts = last - first + 1;
  return {first, parts, parts - (first_item(last + 1, task) > end)};
}

// Where the `i`-th block of a chain leaves its sums.
template <class Sum>
__device__ inline Sum* part_of(const Chain& chain, int i, const StreamedTask& task) {
  const int slot = 2 * (chain.first + i) + (i < chain.joining);
  return static_cast<Sum*>(task.partial) + static_cast<std::int64_t>(slot) * kMostPartialSums;
}

__device__ inline void wait_for_parts(const int* arrivals, int parts) {
  int arrived;
  do {
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(arrived) : "l"(arrivals) : "memory");
  } while (arrived < parts);
}

template <class L, class Sum>
__device__ void leave_part(const Sum (&sums)[L::kSums], int tile, const Chain& chain,
                           const StreamedTask& task) {
  Sum* mine = part_of<Sum>(chain, blockIdx.x - chain.first, task) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < L::kSums; ++i) __stcg(mine + i * L::kConsumers, sums[i]);
  sync_threads_of(1, L::kConsumers);
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(task.arrivals + 2 * tile, 1);
  }
}

// Writes this block's share of a tile whose parts are all there, added in the order of their columns.
template <class L, class Sum, bool kGated>
__device__ void join_share(int tile, const Chain& chain, const StreamedTask& task) {
  constexpr int kWidth = kGated ? L::kConsumers / 2 : L::kConsumers, kAll = L::kSums * kWidth;
  // As many loads under way together as registers allow: of several sums and several parts.
  constexpr int kTogether = L::kSums <= 8 ? L::kSums / 4 : L::kSums <= 16 ? 4 : 8;
  constexpr int kParts = kTogether <= 2 ? 8 : kGated ? 2 : 4;
  const int share = blockIdx.x - chain.first, end = kAll * (share + 1) / chain.joining;
  for (int begin = kAll * share / chain.joining + threadIdx.x; begin < end;
       begin += kTogether * L::kConsumers) {
    Sum sums[kTogether] = {}, up_sums[kTogether] = {};
#pragma unroll kParts
    for (int part = 0; part < chain.parts; ++part) {
      const Sum* from = part_of<Sum>(chain, part, task);
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        const unsigned e = min(begin + k * L::kConsumers, kAll - 1);
        const unsigned at = e / kWidth * L::kConsumers + e % kWidth;
        sums[k] += __ldcg(from + at);
        if constexpr (kGated) up_sums[k] += __ldcg(from + at + kWidth);
      }
    }
    float values[kTogether];
    Position at[kTogether];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      const unsigned e = begin + k * L::kConsumers;
      at[k] = position_of<L>(e / kWidth, e % kWidth, tile, task);
      at[k].is_there = at[k].is_there && static_cast<int>(e) < end;
      values[k] = at[k].is_there ? scaled(sums[k], at[k].row, at[k].column, task) : 0.f;
      if constexpr (kGated)
        if (at[k].is_there)
          values[k] = gated(values[k], scaled(up_sums[k], at[k].row, task.half_rows + at[k].column, task));
    }
#pragma unroll
    for (int k = 0; k < kTogether; ++k)
      if (at[k].is_there) store_out(task, at[k].row, at[k].column, values[k]);
  }
}

// Waits for the parts of the chain, whose blocks all run at once.
template <class L, class Sum>
__device__ void join_parts(int tile, const Chain& chain, const StreamedTask& task) {
  int* arrivals = task.arrivals + 2 * tile;
  if (threadIdx.x == 0) wait_for_parts(arrivals, chain.parts);
  sync_threads_of(1, L::kConsumers);
  if (task.gated)
    join_share<L, Sum, true>(tile, chain, task);
  else
    join_share<L, Sum, false>(tile, chain, task);
  if (threadIdx.x == 0 && atomicAdd(arrivals + 1, 1) == chain.joining - 1) arrivals[0] = arrivals[1] = 0;
}

// The one block that joins a chain of two keeps its own sums.
template <class L, class Sum>
__device__ void add_other_part(Sum (&sums)[L::kSums], int tile, const Chain& chain,
                               const StreamedTask& task) {
  if (threadIdx.x == 0) {
    wait_for_parts(task.arrivals + 2 * tile, 1);
    task.arrivals[2 * tile] = 0;
  }
  sync_threads_of(1, L::kConsumers);
  const Sum* other = part_of<Sum>(chain, 1, task) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < L::kSums; ++i) sums[i] += __ldcg(other + i * L::kConsumers);
}

}  // namespace bise::cuda
