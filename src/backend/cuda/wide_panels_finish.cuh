// What a warpgroup of wide_panels.cu does with its sums: joins them with another's where gate and up are
// joined or the columns divided, scales them and stores them.
#pragma once

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/wide_panels_task.cuh"

namespace bise::cuda {

// The 8 x 8 values of a warp, two of a row in each lane: the same of a column.
__device__ inline std::uint32_t transposed_pair(float first, float second) {
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(pair));
  return pair;
}

// Stores a thread's sums i to i + 3 of a tile: of two weight rows, 8 apart, and two input rows.
__device__ inline void store_four_sums(const WideTask& task, int first_column, int row,
                                       const float (&values)[4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32 % 4;
  if (task.out.type == Float::kBf16) {
    const std::uint32_t pairs[2] = {transposed_pair(values[0], values[1]),
                                    transposed_pair(values[2], values[3])};
    const int own_row = row + lane / 4;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int column = first_column + warp * 16 + k * 8 + lane % 4 * 2;
      if (own_row < task.rows && column < task.half_rows)
        *reinterpret_cast<std::uint32_t*>(static_cast<bf16*>(task.out.data) + own_row * task.out_stride +
                                          column) = pairs[k];
    }
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int column = first_column + warp * 16 + k / 2 * 8 + lane / 4,
                own_row = row + lane % 4 * 2 + k % 2;
      if (own_row < task.rows && column < task.half_rows)
        static_cast<float*>(task.out.data)[own_row * task.out_stride + column] = values[k];
    }
  }
}

// Of a thread's two rows of the weight's half.
struct RowFactors {
  float scale[2] = {1, 1}, bias[2] = {};

  // Of four sums as store_four_sums() has them.
  __device__ float of(float sum, int i) const { return sum * scale[i / 2] + bias[i / 2]; }
};
__device__ inline RowFactors row_factors(const WideTask& task, int half, int block) {
  const int thread = static_cast<int>(threadIdx.x) % 128;
  RowFactors factors;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const int column = min(block * 64 + thread / 32 * 16 + thread % 32 / 4 + k * 8, task.half_rows - 1);
    const int row = half * task.half_rows + column;
    if (task.weight_scales) factors.scale[k] = task.weight_scales[row];
    if (task.bias) factors.bias[k] = task.bias[row];
  }
  return factors;
}

// Hands half of this warpgroup's sums to the one that has gate's rows of its up's, or the reverse, and stores
// the other half, of which it has got those. parts: [groups][sums of a half / 4][128] float4.
template <class L>
__device__ void finish_wide_gated(const WideTask& task, const WidePlace& own, int tile, int round,
                                  char* parts, WideBarriers& barriers, const float (&sums)[L::kSums]) {
  constexpr int kHalf = L::kSums / 2;
  const int thread = static_cast<int>(threadIdx.x) % 128, group = static_cast<int>(threadIdx.x) / 128;
  const WideRows rows = wide_rows_of<L>(tile, own.share, group, task);
  const int other = (own.share * L::kGroups + group) ^ 1, rank = other / L::kGroups;
  const int there = other % L::kGroups;
  const bool is_up = rows.half == 1;
  if (thread == 0) barrier_expect_bytes(barriers.parts + group, L::kPartBytes);
  if (round > 0) barrier_wait(barriers.taken + group, (round - 1) & 1);
  const std::uint32_t to = address_in(parts + there * L::kPartBytes + thread * 16, rank);
  const std::uint32_t barrier = address_in(barriers.parts + there, rank);
#pragma unroll
  for (int i = 0; i < kHalf; i += 4) {
    float values[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) values[k] = is_up ? sums[i + k] : sums[kHalf + i + k];
    store_in(to + i * 512, values, barrier);
  }
  const RowFactors gate_factors = row_factors(task, 0, rows.block),
                   up_factors = row_factors(task, 1, rows.block);
  const int first_row = tile % task.row_tiles * L::kN + (is_up ? L::kN / 2 : 0);
  barrier_wait(barriers.parts + group, round & 1);
#pragma unroll
  for (int i = 0; i < kHalf; i += 4) {
    const float4 part =
        *reinterpret_cast<const float4*>(parts + group * L::kPartBytes + thread * 16 + i * 512);
    const float others[4] = {part.x, part.y, part.z, part.w};
    float values[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float mine = is_up ? sums[kHalf + i + k] : sums[i + k];
      const float gate = gate_factors.of(is_up ? others[k] : mine, k),
                  up = up_factors.of(is_up ? mine : others[k], k);
      values[k] = gate / (1.f + expf(-gate)) * up;
    }
    store_four_sums(task, rows.block * 64, first_row + i * 2, values);
  }
  sync_threads_of(1 + group, 128);
  if (thread == 0) barrier_arrive_in(barriers.taken + there, rank);
}

// Stores the sums of a tile whose columns are not divided.
template <class L>
__device__ void finish_wide_whole(const WideTask& task, const WidePlace& own, int tile,
                                  const float (&sums)[L::kSums]) {
  const WideRows rows = wide_rows_of<L>(tile, own.share, static_cast<int>(threadIdx.x) / 128, task);
  const RowFactors factors = row_factors(task, 0, rows.block);
#pragma unroll
  for (int i = 0; i < L::kSums; i += 4) {
    float values[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) values[k] = factors.of(sums[i + k], k);
    store_four_sums(task, rows.block * 64, tile % task.row_tiles * L::kN + i * 2, values);
  }
}

__device__ inline void wait_for_arrivals(const int* arrivals, int count) {
  int arrived;
  do {
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(arrived) : "l"(arrivals) : "memory");
  } while (arrived < count);
}

// Leaves the sums for the warpgroups that have the same rows and other columns, and stores a share of all.
template <class L>
__device__ void finish_wide_split(const WideTask& task, const WidePlace& own, int tile,
                                  const float (&sums)[L::kSums]) {
  constexpr int kFours = L::kSums / 4, kTogether = 4;
  const int thread = static_cast<int>(threadIdx.x) % 128, group = static_cast<int>(threadIdx.x) / 128;
  const WideRows rows = wide_rows_of<L>(tile, own.share, group, task);
  const auto part_of = [&](int split) {
    const int block = (tile * task.splits + split) * task.sharing + own.share;
    return reinterpret_cast<float4*>(task.partial) + (block * L::kGroups + group) * kFours * 128 + thread;
  };
  float4* mine = part_of(own.split);
#pragma unroll
  for (int i = 0; i < kFours; ++i)
    __stcg(mine + i * 128, make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]));
  int* arrivals = task.arrivals + 2 * ((tile * task.sharing + own.share) * L::kGroups + group);
  const RowFactors factors = row_factors(task, 0, rows.block);
  sync_threads_of(1 + group, 128);
  if (thread == 0) {
    __threadfence();
    atomicAdd(arrivals, 1);
    wait_for_arrivals(arrivals, task.splits);
  }
  sync_threads_of(1 + group, 128);
  const int end = kFours * (own.split + 1) / task.splits;
  for (int first = kFours * own.split / task.splits; first < end; first += kTogether) {
    float totals[kTogether][4] = {};
#pragma unroll 4
    for (int split = 0; split < task.splits; ++split) {
      const float4* from = part_of(split);
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        const float4 part = __ldcg(from + min(first + i, kFours - 1) * 128);
        totals[i][0] += part.x, totals[i][1] += part.y, totals[i][2] += part.z, totals[i][3] += part.w;
      }
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      if (first + i >= end) continue;
#pragma unroll
      for (int k = 0; k < 4; ++k) totals[i][k] = factors.of(totals[i][k], k);
      store_four_sums(task, rows.block * 64, tile % task.row_tiles * L::kN + (first + i) * 8, totals[i]);
    }
  }
  if (thread == 0 && atomicAdd(arrivals + 1, 1) == task.splits - 1) arrivals[0] = arrivals[1] = 0;
}

}  // namespace bise::cuda
