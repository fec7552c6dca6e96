// What the consumers of prompt_attention.cu do with the numbers of their rows: weigh scores, divide sums and
// write them.
#pragma once

#include "backend/cuda/prompt_attention_work.cuh"

namespace bise::cuda {

// Weights may be 2^8 larger than with the largest score as their base before sums are scaled anew.
constexpr float kPromptSlack = 8;

// The rows of a thread, `lane / 4` of its warp's 16 and 8 further down.
struct PromptWeighing {
  int position[2];  // the last key each sees
  float m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0}, keep[2];
};

// Scores to weights of base 2; `keep` gets what earlier sums are multiplied with.
__device__ inline void weigh(float (&scores)[kPromptKeys / 2], const AttentionTask& task, int first_key,
                             bool hides_later, bool hides_earlier, PromptWeighing& rows) {
  const int lane_key = first_key + threadIdx.x % 4 * 2;
  const auto key_of = [&](int i) { return lane_key + i / 4 * 8 + i % 2; };
  if (hides_later) {
#pragma unroll
    for (int i = 0; i < kPromptKeys / 2; ++i)
      if (key_of(i) > rows.position[i / 2 % 2]) scores[i] = -INFINITY;
  }
  if (hides_earlier) {
#pragma unroll
    for (int i = 0; i < kPromptKeys / 2; ++i)
      if (key_of(i) <= rows.position[i / 2 % 2] - task.sliding_window) scores[i] = -INFINITY;
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    // Four chains, so that one need not wait for another.
    float largest[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, sum[4] = {};
    const auto at = [&](int i) -> float& { return scores[i / 2 * 4 + 2 * half + i % 2]; };
#pragma unroll
    for (int i = 0; i < kPromptKeys / 4; ++i) largest[i % 4] = fmaxf(largest[i % 4], at(i));
    float most = fmaxf(fmaxf(largest[0], largest[1]), fmaxf(largest[2], largest[3]));
    most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
    most = fmaxf(most, __shfl_xor_sync(~0u, most, 2)) * task.scale;
    const bool moves = most > rows.m[half] + kPromptSlack;
    const float next = moves ? most : rows.m[half], base = next == -INFINITY ? 0.f : next;
    rows.keep[half] = moves ? power_of_two(rows.m[half] - base) : 1.f;
    rows.m[half] = next;
#pragma unroll
    for (int i = 0; i < kPromptKeys / 4; ++i) {
      at(i) = power_of_two(__fmaf_rn(at(i), task.scale, -base));
      sum[i % 4] += at(i);
    }
    rows.l[half] = __fmaf_rn(rows.l[half], rows.keep[half], (sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
}

// A thread's part of rows that are computed, in bf16: columns 8 i + 2 (lane % 4) of its first row, then of
// its second.
template <int kDim>
struct PromptOutput {
  Span span;
  int kv_head;
  std::uint32_t pairs[2][kDim / 8];
};

template <int kDim>
__device__ inline void divide(const float (&sums)[kDim / 2], const float (&l)[2], PromptOutput<kDim>& out) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float all = l[half];
    all += __shfl_xor_sync(~0u, all, 1);
    all += __shfl_xor_sync(~0u, all, 2);
    const float inverse = 1.f / all;
#pragma unroll
    for (int i = 0; i < kDim / 8; ++i)
      out.pairs[half][i] = pair_of(sums[4 * i + 2 * half] * inverse, sums[4 * i + 2 * half + 1] * inverse);
  }
}

// One store: the compiler may make four of an assignment.
__device__ inline void store_16(uint4* to, uint4 bytes) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(bytes.x), "r"(bytes.y), "r"(bytes.z),
               "r"(bytes.w)
               : "memory");
}

// Gives lane i of four the i-th number of each, in their order.
__device__ inline uint4 exchange(const std::uint32_t* four) {
  const bool odd = threadIdx.x % 2, high = threadIdx.x / 2 % 2;
  std::uint32_t pairs[2][2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t a = four[2 * i], b = four[2 * i + 1];
    const std::uint32_t other = __shfl_xor_sync(~0u, odd ? a : b, 1);
    pairs[i][0] = odd ? other : a;
    pairs[i][1] = odd ? b : other;
  }
  const std::uint32_t first = __shfl_xor_sync(~0u, high ? pairs[0][0] : pairs[1][0], 2);
  const std::uint32_t second = __shfl_xor_sync(~0u, high ? pairs[0][1] : pairs[1][1], 2);
  return high ? uint4{first, second, pairs[1][0], pairs[1][1]}
              : uint4{pairs[0][0], pairs[0][1], first, second};
}

template <int kDim>
__device__ inline void write_rows(const AttentionTask& task, const PromptOutput<kDim>& rows) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = threadIdx.x / 32 * 16 + lane / 4 + half * 8, query = row / task.heads;
    const std::int64_t at = (rows.span.first + query) * task.out_stride +
                            (rows.kv_head * task.heads + row % task.heads) * kDim + lane % 4 * 8;
    uint4* to = reinterpret_cast<uint4*>(static_cast<bf16*>(task.out.data) + at);
#pragma unroll
    for (int i = 0; i < kDim / 32; ++i) {
      const uint4 columns = exchange(rows.pairs[half] + 4 * i);
      if (query < rows.span.count) store_16(to + 4 * i, columns);
    }
  }
}

}  // namespace bise::cuda
