// What the attention kernels share: their task, and which queries a block has.
#pragma once

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/hopper.cuh"

namespace bise::cuda {

struct AttentionTask {
  CUtensorMap key_tiles, value_tiles;
  CUtensorMap query_tiles;  // for prompt_attention()
  const void* qkv;
  // [tokens, head_dim / 2] cosines and sines (rope_angles) by which queries of qkv are still to be turned;
  // else null.
  const float2* angles;
  // So are keys, which are then to be stored in the cache with their values. Of sequences of one query each.
  bool stores_keys;
  int num_heads, heads;  // in all, and of a KV head
  StepView step;
  std::int64_t group;
  int sliding_window;
  CacheView cache;
  int block_shift;
  float scale;  // of scores, base 2
  Values out;
  std::int64_t out_stride;
  int most_queries;  // of a sequence whose context is divided
  float* partial;    // [sequences, most_queries * num_heads, splits, head_dim + 2]
  int* arrivals;     // [sequences, num_kv_heads]
  int* next_work;    // of prompt_attention(), zero before and after
  int splits;
  int works;  // of the launch, at most
};

// Queries [first, first + count) of a sequence: those of a block.
struct Span {
  int sequence, first, count;
};

__device__ inline bool is_divided(const AttentionTask& task, int sequence) {
  return task.step.query_starts[sequence + 1] - task.step.query_starts[sequence] <= task.most_queries;
}

// How many spans of `tokens` queries find_span() finds.
__device__ inline int count_spans(const AttentionTask& task, int tokens) {
  int spans = 0;
  for (int s = threadIdx.x % 32; s < task.step.sequences; s += 32)
    if (!is_divided(task, s))
      spans += (task.step.query_starts[s + 1] - task.step.query_starts[s] + tokens - 1) / tokens;
  return static_cast<int>(__reduce_add_sync(~0u, static_cast<unsigned>(spans)));
}

// The `tile`-th span of `tokens` queries, of the sequences that are not divided; count is 0 beyond the last.
__device__ inline Span find_span(const AttentionTask& task, int tile, int tokens) {
  const int lane = threadIdx.x % 32;
  int before = 0;
  for (int base = 0; base < task.step.sequences; base += 32) {
    const int s = base + lane;
    int queries = 0;
    if (s < task.step.sequences && !is_divided(task, s))
      queries = task.step.query_starts[s + 1] - task.step.query_starts[s];
    const int tiles = (queries + tokens - 1) / tokens;
    int end = tiles;
    for (int offset = 1; offset < 32; offset *= 2) {
      const int other = __shfl_up_sync(~0u, end, offset);
      if (lane >= offset) end += other;
    }
    const unsigned reached = __ballot_sync(~0u, before + end > tile);
    if (reached) {
      const int source = __ffs(static_cast<int>(reached)) - 1;
      const int skipped = tile - before - __shfl_sync(~0u, end - tiles, source);
      const int sequence = base + source;
      const int all = __shfl_sync(~0u, queries, source);
      return {sequence, task.step.query_starts[sequence] + skipped * tokens,
              min(tokens, all - skipped * tokens)};
    }
    before += __shfl_sync(~0u, end, 31);
  }
  return {};
}

__device__ inline std::uint32_t pair_of(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(pair);
}

__device__ inline float2 two_of(std::uint32_t pair) {
  return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pair));
}

__device__ inline float power_of_two(float exponent) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(exponent));
  return power;
}

__device__ inline void store_two(const Values& out, std::int64_t at, float a, float b) {
  if (out.type == Float::kBf16)
    *reinterpret_cast<std::uint32_t*>(static_cast<bf16*>(out.data) + at) = pair_of(a, b);
  else
    *reinterpret_cast<float2*>(static_cast<float*>(out.data) + at) = {a, b};
}

inline unsigned multiprocessors() {
  static const unsigned count = [] {
    int device = 0, count = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    return static_cast<unsigned>(count);
  }();
  return count;
}

// copy_tile() of a map of three dimensions (head_tile_map).
__device__ inline void copy_tile_of_heads(void* to, const CUtensorMap* map, int column, int head, int row,
                                          std::uint64_t* barrier, std::uint64_t cache_policy) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(head), "r"(row), "l"(cache_policy)
      : "memory");
}

// prompt_attention.cu: of sequences that are not divided, in steps of so many tokens, with qkv and output in
// bf16 and keys and values in boxes.
constexpr int kPromptRows = 128;
constexpr std::int64_t kPromptTokens = 65;
void prompt_attention(const AttentionTask& task, cudaStream_t stream);

}  // namespace bise::cuda
