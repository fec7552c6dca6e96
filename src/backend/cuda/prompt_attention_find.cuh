// The warp of a block of prompt_attention.cu that takes works and brings their queries, turned where they are
// still to be.
#pragma once

#include "backend/cuda/prompt_attention_work.cuh"
#include "backend/cuda/rotary.cuh"

namespace bise::cuda {

// Turns the work's queries, with the bits that rope_and_store() leaves. One warp, each lane four pairs of
// dimensions (i, i + head_dim / 2) at a time: its registers are few.
template <int kDim>
__device__ inline void turn_queries(const AttentionTask& task, const PromptWork& work, char* queries) {
  constexpr int kLanes = kDim / 8, kRows = 32 / kLanes;  // of a row, at a time
  const int lane = threadIdx.x % 32, rows = work.span.count * task.heads, pair = lane % kLanes * 4;
  // row / heads, as rows are few.
  const unsigned row_share = (1u << 16) / static_cast<unsigned>(task.heads) + 1;
  const float2* angles = task.angles + std::int64_t{work.span.first} * (kDim / 2) + pair;
  float4 next[2];  // of two pairs each, asked for one row ahead
  const auto ask = [&](int row) {
    const int query = static_cast<int>(static_cast<unsigned>(min(row, rows - 1)) * row_share >> 16);
    const auto* from = reinterpret_cast<const float4*>(angles + query * (kDim / 2));
    next[0] = from[0];
    next[1] = from[1];
  };
  ask(lane / kLanes);
  for (int row = lane / kLanes; row < rows; row += kRows) {
    const float4 angle[2] = {next[0], next[1]};
    ask(row + kRows);
    const auto at = [&](int column) {
      return reinterpret_cast<uint2*>(queries + prompt_chunk(row, column / 8) + column % 8 * 2);
    };
    uint2 *low = at(pair), *high = at(pair + kDim / 2);
    uint2 x = *low, y = *high;
    const auto turn = [](std::uint32_t& low_two, std::uint32_t& high_two, const float4& by) {
      const float2 a = two_of(low_two), b = two_of(high_two);
      const float2 one = turned(a.x, b.x, by.x, by.y), two = turned(a.y, b.y, by.z, by.w);
      low_two = pair_of(one.x, two.x);
      high_two = pair_of(one.y, two.y);
    };
    turn(x.x, y.x, angle[0]);
    turn(x.y, y.y, angle[1]);
    *low = x;
    *high = y;
  }
}

// Brings the queries of the ring's work at that place, once those before them are not needed any more.
template <int kDim>
__device__ inline void produce_queries(const AttentionTask& task, const PromptWork& work,
                                       PromptTiles<kDim> tiles, PromptRings& rings, const RingPlace& at) {
  char* queries = tiles.queries(at.stage);
  std::uint64_t* full = rings.queries.full + at.stage;
  std::uint64_t* landed = task.angles ? rings.landed_queries + at.stage : full;
  barrier_wait(rings.queries.empty + at.stage, at.parity ^ 1);
  wait_for_earlier_kernels();
  if (threadIdx.x % 32 == 0) {
    barrier_expect_bytes(landed, kPromptRows / task.heads * task.heads * kDim * 2);
    for (int half = 0; half < PromptLayout<kDim>::kHalves; ++half)
      copy_tile_of_heads(queries + half * PromptLayout<kDim>::kHalfBytes, &task.query_tiles, half * 64,
                         work.kv_head * task.heads, work.span.first, landed, read_once_policy());
  }
  __syncwarp();
  if (!task.angles) return;
  barrier_wait(landed, at.parity);
  turn_queries<kDim>(task, work, queries);
  writes_visible_to_products();
  __syncwarp();
  if (threadIdx.x % 32 == 0) barrier_arrive(full);
}

// One warp finds works: the block's first and then those that no block has taken, until none is left.
template <int kDim>
__device__ inline void find_works(const AttentionTask& task, PromptTiles<kDim> tiles, PromptRings& rings) {
  const int kv_heads = static_cast<int>(task.cache.num_kv_heads), tokens = kPromptRows / task.heads;
  const int spans = count_spans(task, tokens), works = spans * kv_heads, blocks = static_cast<int>(gridDim.x);
  const bool signals = threadIdx.x % 32 == 0;
  RingPlace at;
  const auto publish = [&](int index) {
    PromptWork work = {};
    if (index < works) {
      // The last queries of a prompt, which see the most keys, come first.
      work.span = find_span(task, spans - 1 - index / kv_heads, tokens);
      work.kv_head = index % kv_heads;
      work.first_position = task.step.positions[work.span.first];
      work.last_position = work.first_position + work.span.count - 1;
      work.visible = task.sliding_window > 0 ? max(0, work.first_position - task.sliding_window + 1) : 0;
      work.first_tile = work.visible / kPromptKeys;
      work.last_tile = work.last_position / kPromptKeys;
    }
    barrier_wait(rings.works.empty + at.stage, at.parity ^ 1);  // at first of a phase before the first
    if (signals) {
      rings.work[at.stage] = work;
      barrier_arrive(rings.works.full + at.stage);
    }
    __syncwarp();
    if (work.span.count > 0) produce_queries<kDim>(task, work, tiles, rings, at);
    at.advance(kPromptWorks);
  };
  // Each block asks once for each work it has; the last to ask leaves the counter as it was.
  const auto ask = [&] {
    int next = 0;
    if (signals) next = atomicAdd(task.next_work, 1);
    if (signals && next == works - 1) *task.next_work = 0;
    return next + blocks;
  };
  int index = static_cast<int>(blockIdx.x);
  for (bool is_first = true; index < works; is_first = false) {
    int next = works;
    if (!is_first) next = ask();
    publish(index);
    // Not before publish() has waited for earlier kernels, whose counter it is, too.
    if (is_first && works > blocks) next = ask();
    index = __shfl_sync(~0u, next, 0);
  }
  publish(works);
}

}  // namespace bise::cuda
