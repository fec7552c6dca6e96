// The queries of a warpgroup of tile_attention.cu, from qkv into registers, turned on the way where they are
// still to be.
#pragma once

#include "backend/cuda/rotary.cuh"
#include "backend/cuda/tile_attention_operands.cuh"

namespace bise::cuda {

// A thread's part of its warpgroup's rows: operand A of warpgroup products, 16 columns a step.
template <class L>
struct TileQueries {
  std::uint32_t pairs[L::kHalves * 4][4];
};

// A row's queries that are still to be turned, rounded to bf16 then. All loads are on their way at once.
template <class L>
__device__ inline void load_turned(const float2* angles, const bf16* from, bool is_there, int half,
                                   TileQueries<L>& queries) {
  constexpr int kEights = L::kHalves * 4;  // of half a head
  const int first_column = threadIdx.x % 4 * 2;
  std::uint32_t low[kEights], high[kEights];
  float4 angle[kEights];
#pragma unroll
  for (int i = 0; i < kEights; ++i) {
    low[i] = *reinterpret_cast<const std::uint32_t*>(from + i * 8 + first_column);
    high[i] = *reinterpret_cast<const std::uint32_t*>(from + (i + kEights) * 8 + first_column);
    angle[i] = *reinterpret_cast<const float4*>(angles + i * 8 + first_column);
  }
#pragma unroll
  for (int i = 0; i < kEights; ++i) {
    const float2 a = two_of(low[i]), b = two_of(high[i]);
    const float2 one = turned(a.x, b.x, angle[i].x, angle[i].y),
                 two = turned(a.y, b.y, angle[i].z, angle[i].w);
    const float2 x = two_of(is_there ? pair_of(one.x, two.x) : 0);
    const float2 y = two_of(is_there ? pair_of(one.y, two.y) : 0);
    queries.pairs[i / 2][i % 2 * 2 + half] = operand_pair<L>(x.x, x.y);
    queries.pairs[(i + kEights) / 2][i % 2 * 2 + half] = operand_pair<L>(y.x, y.y);
  }
}
template <class L, class T>
__device__ void load_tile_queries(const AttentionTask& task, const TileWork& work, int group,
                                  TileQueries<L>& queries) {
  const int lane = threadIdx.x % 32;
  const std::int64_t columns = (task.num_heads + 2 * task.cache.num_kv_heads) * L::kHeadDim;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = group * kGroupRows + threadIdx.x / 32 % 4 * 16 + lane / 4 + half * 8;
    const int query = row / task.heads, head = row % task.heads;
    const std::int64_t row_offset = query * columns + head * L::kHeadDim;
    const T* from = static_cast<const T*>(task.qkv) + work.span.first * columns +
                    work.kv_head * task.heads * L::kHeadDim + row_offset;
    if constexpr (L::kDividesContext && std::is_same_v<T, bf16>) {
      if (task.angles) {
        // Rows that are not there load what the first has.
        const bool is_there = query < work.span.count;
        load_turned<L>(task.angles + work.span.first * (L::kHeadDim / 2), is_there ? from : from - row_offset,
                       is_there, half, queries);
        continue;
      }
    }
#pragma unroll
    for (int i = 0; i < L::kHalves * 8; ++i) {
      float2 two = {0, 0};
      if (query < work.span.count) two = load_two(from + i * 8 + lane % 4 * 2);
      queries.pairs[i / 2][i % 2 * 2 + half] = operand_pair<L>(two.x, two.y);
    }
  }
}

}  // namespace bise::cuda
