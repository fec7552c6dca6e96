// Flash attention (Dao 2022; Shah et al. 2024): a warpgroup holds 64 rows, a row being one query of one of
// the heads that share a KV head, and takes tiles of 64 keys: scores, online softmax, weighted values, the
// scores of the next tile being multiplied while the values of this one are. Blocks stay and take one work
// after another: a warp of theirs finds works and asks the copy engine for their keys and values as far ahead
// as the rings of shared memory reach, and others make values that no row sees zeros and codes float16.
//
// The context is cut at multiples of kSplitKeys positions. Each part gives a maximum, a sum and weighted
// values, joined from the first to the last: by the one block that computed them (sequences with many
// queries) or by the last to finish of the blocks that had one part each (few queries). A row sees the same
// tiles and the same arithmetic in both, so its result depends on nothing else.
//
// This file has the kernel, what its warpgroups do work after work, and its launch. In the order of the work:
// tile_attention_work.cuh has works and the shared memory for them, tile_attention_fetch.cuh brings their
// tiles, tile_attention_finish.cuh makes these operands (tile_attention_operands.cuh),
// tile_attention_queries.cuh loads queries, tile_attention_scores.cuh has softmax and sums,
// tile_attention_rows.cuh joins parts and writes rows.
#include "backend/cuda/tile_attention.h"

#include <algorithm>

#include "backend/cuda/launch.cuh"
#include "backend/cuda/streamed_linear.h"
#include "backend/cuda/tile_attention_fetch.cuh"
#include "backend/cuda/tile_attention_finish.cuh"
#include "backend/cuda/tile_attention_rows.cuh"
#include "backend/cuda/tile_attention_scores.cuh"

namespace bise::cuda {
namespace {

// Sequences times KV heads; each pair counts the parts that have been computed. One more counts works.
constexpr std::int64_t kMostCounters = kAttentionCounterBytes / sizeof(int) - 1;

// A warpgroup takes the block's works.
template <class L, class T>
__device__ void consume(const AttentionTask& task, TileRings<L>& rings, const char* ring, float* joined) {
  const int lane = threadIdx.x % 32, group = threadIdx.x / 128;
  const int warp_row = group * kGroupRows + threadIdx.x / 32 % 4 * 16;
  [[maybe_unused]] float* mine = joined + group * L::kJoinedFloats + threadIdx.x % 128;
  RingPlace works_at, at;
  TileQueries<L> queries;
  TileWork next = next_tile_work(rings, works_at);
  if (next.span.count > 0) load_tile_queries<L, T>(task, next, group, queries);
  while (next.span.count > 0) {
    const TileWork work = next;
    const int all_rows = work.span.count * task.heads;
    TileRows rows;
    rows.any = warp_row < all_rows;
#pragma unroll
    for (int half = 0; half < 2; ++half)
      rows.position[half] =
          work.first_position + min(warp_row + lane / 4 + half * 8, all_rows - 1) / task.heads;
    float sums[L::kHalves][32] = {}, m[2], l[2];
    [[maybe_unused]] float joined_m[2] = {-INFINITY, -INFINITY}, joined_l[2] = {0, 0};
    for (int tile = work.first_tile; tile <= work.last_tile;) {
      const int end = min(work.last_tile + 1, (tile / kSplitTiles + 1) * kSplitTiles);
      m[0] = m[1] = -INFINITY;
      l[0] = l[1] = 0;
      attend_to_tiles<L>(task, work, rows, queries, ring, rings, at, tile, end, sums, m, l);
      [[maybe_unused]] const bool is_first = tile == work.first_tile, is_last = end > work.last_tile;
      tile = end;
      if constexpr (!L::kDividesContext) {
        if (is_first && is_last) break;
        JoinFactors f[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          f[half] = join_factors(joined_m[half], joined_l[half], m[half], l[half]);
          m[half] = joined_m[half] = f[half].m;
          l[half] = joined_l[half] = f[half].l;
        }
#pragma unroll
        for (int d = 0; d < L::kHalves; ++d)
#pragma unroll
          for (int i = 0; i < 32; ++i) {
            float& kept = mine[(d * 32 + i) * 128];
            sums[d][i] = join_sums(is_first ? 0.f : kept, sums[d][i], f[i / 2 % 2]);
            if (!is_last) kept = sums[d][i];
          }
      }
    }
    // The next work's queries are on their way while these rows are written.
    next = next_tile_work(rings, works_at);
    if (next.span.count > 0) load_tile_queries<L, T>(task, next, group, queries);
    if constexpr (L::kDividesContext) {
      if (work.parts > 1) {
        join_context_parts<L>(task, work, sums, m, l);
        continue;
      }
    }
    write_tile_rows<L>(task, work, group, sums, l);
  }
}

template <int kGroups, int kDim, class T, class C>
__global__ void __launch_bounds__(TileLayout<kGroups, kDim, C>::kThreads,
                                  TileLayout<kGroups, kDim, C>::kBlocks)
    tile_attention_kernel(const __grid_constant__ AttentionTask task) {
  using L = TileLayout<kGroups, kDim, C>;
  extern __shared__ char memory[];
  __shared__ TileRings<L> rings;
  char* ring = memory + (1024 - shared_address(memory) % 1024) % 1024;
  char* landings = L::kConverts ? ring + L::kRingBytes : ring;
  float* joined = reinterpret_cast<float*>(ring + L::kRingBytes + L::kCodeBytes);
  const int warp = static_cast<int>(threadIdx.x) / 32 - kGroups * 4;  // of the producers
  let_next_kernel_begin();
  if (threadIdx.x == 0) {
    const auto init = [](auto& barriers, int arrivals) {
      for (std::uint64_t& barrier : barriers) barrier_init(&barrier, arrivals);
    };
    init(rings.works_full, 1);
    init(rings.works_empty, kGroups * 4 + L::kFinishers);
    init(rings.landed, 1);
    init(rings.taken, L::kFinishers);
    init(rings.full, L::kFinishers);
    init(rings.empty, kGroups);
    barrier_init_visible();
  }
  __syncthreads();
  // The step's numbers were there before its first kernel.
  if (warp >= 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(L::kProducerRegisters));
    if (warp == 0)
      TileProducer<L>(task, landings, rings).run();
    else if (warp <= L::kFinishers)
      finish_tiles<L, C>(task, rings, ring, landings, warp - 1);
    wait_for_earlier_kernels();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(L::kConsumerRegisters));
    wait_for_earlier_kernels();
    consume<L, T>(task, rings, ring, joined);
  }
}

template <int kGroups, int kDim, class T, class C>
void start(const AttentionTask& task, cudaStream_t stream) {
  using L = TileLayout<kGroups, kDim, C>;
  const auto kernel = tile_attention_kernel<kGroups, kDim, T, C>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes);
  (void)allowed;  // the launch fails if this did
  const auto blocks = std::min(static_cast<unsigned>(task.works), L::kBlocks * multiprocessors());
  launch(kernel, blocks, L::kThreads, L::kBytes, stream, task);
}

// Sequences of at most so many queries have their context divided among blocks: all, where that is few, else
// those that decode.
int most_divided_queries(const StepView& step, std::int64_t heads) {
  return step.longest_query * heads <= kGroupRows ? static_cast<int>(step.longest_query) : 1;
}

int splits_of(const StepView& step) {
  return static_cast<int>((step.longest_context + kSplitKeys - 1) / kSplitKeys);
}

}  // namespace

bool supports_tile_attention(std::int64_t num_heads, const StepView& step, const CacheView& cache) {
  const std::int64_t size = cache.block_size;
  // Swizzled rows repeat after eight.
  return (cache.head_dim == 64 || cache.head_dim == 128) && num_heads / cache.num_kv_heads <= kGroupRows &&
         size >= 8 && (size & (size - 1)) == 0 && cache.type != Float::kF32 &&
         step.sequences * cache.num_kv_heads <= kMostCounters;
}

bool turns_in_attention(std::int64_t num_heads, const StepView& step, const CacheView& cache) {
  if (!supports_tile_attention(num_heads, step, cache)) return false;
  return step.longest_query == 1 ||
         (cache.type == Float::kBf16 && step.tokens >= kPromptTokens &&
          step.longest_query > most_divided_queries(step, num_heads / cache.num_kv_heads));
}

std::size_t tile_attention_workspace(const StepView& step, std::int64_t num_heads, const CacheView& cache) {
  const std::int64_t queries = most_divided_queries(step, num_heads / cache.num_kv_heads);
  return kAttentionCounterBytes + static_cast<std::size_t>(step.sequences * queries * num_heads *
                                                           splits_of(step) * (cache.head_dim + 2)) *
                                      sizeof(float);
}

void tile_attention(Values qkv, const float* angles, std::int64_t num_heads, const StepView& step,
                    std::int64_t group, std::int64_t sliding_window, const CacheView& cache, Values out,
                    std::int64_t out_stride, void* workspace, cudaStream_t stream) {
  const int heads = static_cast<int>(num_heads / cache.num_kv_heads);
  int block_shift = 0;
  while ((std::int64_t{1} << block_shift) < cache.block_size) ++block_shift;
  AttentionTask task{
      .key_tiles = {},
      .value_tiles = {},
      .query_tiles = {},
      .qkv = qkv.data,
      .angles = reinterpret_cast<const float2*>(angles),
      .stores_keys = angles && step.longest_query == 1,
      .num_heads = static_cast<int>(num_heads),
      .heads = heads,
      .step = step,
      .group = group,
      .sliding_window = static_cast<int>(sliding_window),
      .cache = cache,
      .block_shift = block_shift,
      // Exponentials are of base 2.
      .scale = 1.44269504f / sqrtf(static_cast<float>(cache.head_dim)) * cache.key_scale,
      .out = out,
      .out_stride = out_stride,
      .most_queries = most_divided_queries(step, heads),
      .partial = reinterpret_cast<float*>(static_cast<char*>(workspace) + kAttentionCounterBytes),
      .arrivals = static_cast<int*>(workspace),
      .next_work = static_cast<int*>(workspace) + kMostCounters,
      .splits = splits_of(step),
      .works = 0};
  const int rows = static_cast<int>(std::min<std::int64_t>(cache.block_size, kTileKeys));
  const std::int64_t slots = cache.num_blocks * cache.block_size;
  const std::int64_t stride = cache.num_kv_heads * cache.head_dim;
  const auto map_of = [&](const void* data) {
    return cache.type == Float::kBf16
               ? tile_map(data, sizeof(bf16), slots, stride, rows)
               : code_tile_map(data, slots, stride, static_cast<int>(cache.head_dim), rows);
  };
  task.key_tiles = map_of(cache.keys);
  task.value_tiles = map_of(cache.values);
  const auto start_both = [&](auto dim, auto* rows, auto* kind) {
    constexpr int kDim = decltype(dim)::value;
    using T = std::remove_pointer_t<decltype(rows)>;
    using C = std::remove_pointer_t<decltype(kind)>;
    // The shortest sequence has at least the queries that are left when all others are as long as can be.
    if (step.tokens - (step.sequences - 1) * step.longest_query <= task.most_queries) {
      task.works = static_cast<int>(task.splits * cache.num_kv_heads * step.sequences);
      start<1, kDim, T, C>(task, stream);
    }
    if (step.longest_query <= task.most_queries) return;
    constexpr int kRows = TileLayout<2, kDim, C>::kRows;
    static_assert(kRows == kPromptRows);
    task.works = static_cast<int>((step.tokens / (kRows / heads) + step.sequences) * cache.num_kv_heads);
    if (std::is_same_v<T, bf16> && std::is_same_v<C, bf16> && out.type == Float::kBf16 &&
        step.tokens >= kPromptTokens) {
      task.query_tiles = head_tile_map(qkv.data, step.tokens, (num_heads + 2 * cache.num_kv_heads) * kDim,
                                       kDim, heads, kRows / heads);
      return prompt_attention(task, stream);
    }
    start<2, kDim, T, C>(task, stream);
  };
  const auto with_dim = [&](auto* rows, auto* kind) {
    if (cache.head_dim == 64)
      start_both(std::integral_constant<int, 64>(), rows, kind);
    else
      start_both(std::integral_constant<int, 128>(), rows, kind);
  };
  with_type(qkv, [&](auto* rows) {
    if (cache.type == Float::kE4M3)
      with_dim(rows, static_cast<std::uint8_t*>(nullptr));
    else
      with_dim(rows, static_cast<bf16*>(nullptr));
  });
}

}  // namespace bise::cuda
