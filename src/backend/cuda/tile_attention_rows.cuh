// What tile_attention.cu does with the sums of rows: joins the parts of a context and writes the output.
#pragma once

#include "backend/cuda/tile_attention_work.cuh"

namespace bise::cuda {

// Joins the part (sum2, m2, l2) to what came before: the same two operations everywhere.
struct JoinFactors {
  float keep, add, m, l;
};
__device__ inline JoinFactors join_factors(float m, float l, float m2, float l2) {
  if (l2 == 0) return {1, 0, m, l};  // a part that the row does not see
  if (l == 0) return {0, 1, m2, l2};
  const float largest = fmaxf(m, m2), keep = power_of_two(m - largest), add = power_of_two(m2 - largest);
  return {keep, add, largest, __fmaf_rn(l, keep, __fmul_rn(l2, add))};
}
__device__ inline float join_sums(float sum, float sum2, const JoinFactors& f) {
  return __fmaf_rn(sum, f.keep, __fmul_rn(sum2, f.add));
}

// Calls body(at_row(row of the block), half of the thread's rows, column, two sums) for the rows and columns
// there are.
template <class L, class AtRow, class Body>
__device__ void each_two_sums(const AttentionTask& task, const TileWork& work, int group,
                              const float (&sums)[L::kHalves][32], AtRow at_row, Body body) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = group * kGroupRows + warp * 16 + lane / 4 + half * 8;
    if (row >= work.span.count * task.heads) continue;
    const auto at = at_row(row);
#pragma unroll
    for (int d = 0; d < L::kHalves; ++d)
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int column = d * 64 + i * 8 + lane % 4 * 2;
        body(at, half, column, sums[d][4 * i + 2 * half], sums[d][4 * i + 2 * half + 1]);
      }
  }
}

__device__ inline std::int64_t out_index(const AttentionTask& task, const TileWork& work, int row) {
  return (work.span.first + row / task.heads) * task.out_stride +
         (work.kv_head * task.heads + row % task.heads) * task.cache.head_dim;
}

template <class L>
__device__ void write_tile_rows(const AttentionTask& task, const TileWork& work, int group,
                                const float (&sums)[L::kHalves][32], const float (&l)[2]) {
  const float inverse[2] = {task.cache.value_scale / l[0], task.cache.value_scale / l[1]};
  each_two_sums<L>(
      task, work, group, sums, [&](int row) { return out_index(task, work, row); },
      [&](std::int64_t at, int half, int column, float a, float b) {
        store_two(task.out, at + column, a * inverse[half], b * inverse[half]);
      });
}

// Leaves one part of a divided context; the last block to come joins all of them.
template <class L>
__device__ void join_context_parts(const AttentionTask& task, const TileWork& work,
                                   const float (&sums)[L::kHalves][32], const float (&m)[2],
                                   const float (&l)[2]) {
  constexpr int head_dim = L::kHeadDim, width = head_dim + 2;
  const int rows = work.span.count * task.heads;
  // Rows of this KV head, which need not be those of a token one after another.
  float* first = task.partial +
                 (static_cast<std::int64_t>(work.span.sequence) * task.cache.num_kv_heads + work.kv_head) *
                     task.most_queries * task.heads * task.splits * width;
  const auto part = [&](int row, int split) {
    return first + (static_cast<std::int64_t>(row) * task.splits + split) * width;
  };
  each_two_sums<L>(
      task, work, 0, sums, [&](int row) { return part(row, work.split); },
      [&](float* to, int half, int column, float a, float b) {
        __stcg(reinterpret_cast<float2*>(to + column), float2{a, b});
        if (column == 0) __stcg(reinterpret_cast<float2*>(to + head_dim), float2{m[half], l[half]});
      });
  __threadfence();
  __shared__ int is_last;
  sync_threads_of(1, 128);
  if (threadIdx.x == 0) {
    int* arrivals = task.arrivals + work.span.sequence * task.cache.num_kv_heads + work.kv_head;
    is_last = atomicAdd(arrivals, 1) == work.parts - 1;
    if (is_last) *arrivals = 0;
  }
  sync_threads_of(1, 128);
  if (!is_last) return;
  __threadfence();
  for (int i = threadIdx.x; i < rows * head_dim / 2; i += 128) {
    const int row = i / (head_dim / 2), column = i % (head_dim / 2) * 2;
    float2 sum = {0, 0};
    float largest = -INFINITY, total = 0;
#pragma unroll 4
    for (int split = 0; split < work.parts; ++split) {
      const float2 other = __ldcg(reinterpret_cast<const float2*>(part(row, split) + column));
      const float2 ends = __ldcg(reinterpret_cast<const float2*>(part(row, split) + head_dim));
      const JoinFactors f = join_factors(largest, total, ends.x, ends.y);
      sum = {join_sums(sum.x, other.x, f), join_sums(sum.y, other.y, f)};
      largest = f.m;
      total = f.l;
    }
    const float inverse = task.cache.value_scale / total;
    store_two(task.out, out_index(task, work, row) + column, sum.x * inverse, sum.y * inverse);
  }
}

}  // namespace bise::cuda
