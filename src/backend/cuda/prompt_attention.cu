// Attention of prompts (Dao 2022; Shah et al. 2024): two warpgroups hold 64 rows each, a row being one query
// of one of the heads that share a KV head, and take tiles of 128 keys in turns: one asks for the products of
// scores and values while the other weighs. Two warps bring keys and values into rings of shared memory by
// the copy engine; values of tiles that reach beyond what the rows see are copied by threads, zeros there:
// unwritten memory may hold anything, and zero weights would not hide it. A block does one work after
// another, and the rings run on: the keys of the next are there when the rows of the last are written.
//
// Its sums are not those of tile_attention.cu, which cuts contexts at fixed positions: it takes the steps
// whose linear layers depend on the number of rows as well.
#include <algorithm>

#include "backend/cuda/attention_task.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {
namespace {

constexpr int kKeys = 128;  // of a tile
constexpr int kConsumers = 256, kThreads = kConsumers + 128;
constexpr int kConsumerRegisters = 232, kProducerRegisters = 40;
constexpr int kFirstTurn =
    2;  // barriers of the block: 0 of all threads, turns, and kFirstTurn + 2 of a warpgroup's queries
// Weights may be 2^8 larger than with the largest score as their base before sums are scaled anew.
constexpr float kSlack = 8;

template <int kDim>
struct Layout {
  static constexpr int kHalves = kDim / 64;       // of 128 bytes, as wide as a swizzled row
  static constexpr int kHalfBytes = kKeys * 128;  // of a tile of keys, values or queries
  static constexpr int kTileBytes = kHalves * kHalfBytes;
  static constexpr int kStages = 3;
  static constexpr int kBytes = (1 + 2 * kStages) * kTileBytes + 1024;
};
static_assert(kPromptRows == kKeys);

struct Ring {
  std::uint64_t full[3], empty[3];
};

// What a block computes: queries of one KV head, over tiles [first_tile, last_tile] of keys.
struct Work {
  Span span;
  int kv_head, first_position, last_position;
  int visible;  // the first key that any row sees
  int first_tile, last_tile;
};

// The `round`-th of a block. Blocks take works to and fro, so that each has long and short ones.
__device__ inline int work_index(int round) {
  const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  return round * blocks + (round % 2 == 0 ? block : blocks - 1 - block);
}

// Without queries where the number of spans was rounded up.
__device__ inline Work find_work(const AttentionTask& task, int index) {
  Work work = {};
  const int kv_heads = static_cast<int>(task.cache.num_kv_heads);
  if (index >= task.prompt_spans * kv_heads) return work;
  // The last queries of a prompt, which see the most keys, come first.
  work.span = find_span(task, task.prompt_spans - 1 - index / kv_heads, kPromptRows / task.heads);
  if (work.span.count == 0) return work;
  work.kv_head = index % kv_heads;
  work.first_position = task.step.positions[work.span.first];
  work.last_position = work.first_position + work.span.count - 1;
  work.visible = task.sliding_window > 0 ? max(0, work.first_position - task.sliding_window + 1) : 0;
  work.first_tile = work.visible / kKeys;
  work.last_tile = work.last_position / kKeys;
  return work;
}

// Where 16 bytes of row `row` and column chunk `chunk` of 8 values stand in a tile.
__device__ inline int swizzled(int row, int chunk) {
  return chunk / 8 * kKeys * 128 + row * 128 + ((chunk % 8 ^ row % 8) << 4);
}

// One warp. `place` of the ring's next tile.
template <int kDim, bool kValues>
__device__ void produce(const AttentionTask& task, const Work& work, char* tiles, Ring& ring,
                        RingPlace& place) {
  using L = Layout<kDim>;
  const int lane = threadIdx.x % 32, shift = task.block_shift, mask = (1 << shift) - 1;
  const CacheView& cache = task.cache;
  const std::int32_t* blocks = task.step.block_table + (work.span.sequence * task.step.groups + task.group) *
                                                           task.step.blocks_per_sequence;
  const CUtensorMap& map = kValues ? task.value_tiles : task.key_tiles;
  const int box_rows = min(1 << shift, kKeys / 2), box_row = lane / L::kHalves * box_rows;
  const int half = lane % L::kHalves, column = work.kv_head * kDim + half * 64;
  const std::uint64_t often = read_often_policy();
  // Keys that no row sees may be any: their scores are not looked at.
  const auto slot_of = [&](int key) {
    const int seen = min(max(key, work.visible), work.last_position);
    return (blocks[seen >> shift] << shift) + (seen & mask);
  };
  int next = slot_of(work.first_tile * kKeys + box_row);
  for (int tile = work.first_tile; tile <= work.last_tile; ++tile, place.advance(L::kStages)) {
    const int first = tile * kKeys, slot = next / box_rows * box_rows;
    char* to = tiles + place.stage * 2 * L::kTileBytes + (kValues ? L::kTileBytes : 0);
    std::uint64_t* full = ring.full + place.stage;
    next = slot_of(first + kKeys + box_row);
    barrier_wait(ring.empty + place.stage, place.parity ^ 1);  // at first of a phase before the first
    const bool is_whole = first >= work.visible && first + kKeys - 1 <= work.last_position;
    if (!kValues || is_whole) {
      if (lane == 0) barrier_expect_bytes(full, L::kTileBytes);
      __syncwarp();
      if (box_row < kKeys)
        copy_tile(to + half * L::kHalfBytes + box_row * 128, &map, column, slot, full, often);
      __syncwarp();
      continue;
    }
    constexpr int kChunks = kDim / 8;
    const int chunk = lane % kChunks;
    const auto* from = static_cast<const bf16*>(cache.values) + work.kv_head * kDim + chunk * 8;
    const std::int64_t stride = cache.num_kv_heads * kDim;
#pragma unroll 8
    for (int row = lane / kChunks; row < kKeys; row += 32 / kChunks) {
      const int key = first + row;
      const bool is_there = key >= work.visible && key <= work.last_position;
      copy_16(shared_address(to + swizzled(row, chunk)), from + slot_of(key) * stride, is_there ? 16 : 0);
    }
    copies_commit();
    copies_wait<0>();
    writes_visible_to_products();
    __syncwarp();
    if (lane == 0) barrier_arrive(full);
  }
}

// A warpgroup's rows of queries into shared memory.
template <int kDim>
__device__ void load_queries(const AttentionTask& task, const Work& work, char* queries) {
  constexpr int kChunks = kDim / 8;
  const int thread = threadIdx.x % 128, chunk = thread % kChunks, group = threadIdx.x / 128;
  const std::int64_t columns = (task.num_heads + 2 * task.cache.num_kv_heads) * kDim;
  const auto* qkv = static_cast<const bf16*>(task.qkv);
#pragma unroll
  for (int i = 0; i < 64 * kChunks / 128; ++i) {
    const int row = group * 64 + thread / kChunks + i * (128 / kChunks);
    const int query = row / task.heads, head = work.kv_head * task.heads + row % task.heads;
    const bool is_there = query < work.span.count;
    const std::int64_t from = (work.span.first + (is_there ? query : 0)) * columns + head * kDim + chunk * 8;
    copy_16(shared_address(queries + swizzled(row, chunk)), qkv + from, is_there ? 16 : 0);
  }
  copies_commit();
  copies_wait<0>();
  writes_visible_to_products();
  sync_threads_of(kFirstTurn + 2 + group, 128);
}

// The rows of a thread, `lane / 4` of its warp's 16 and 8 further down.
struct Weighing {
  int position[2];  // the last key each sees
  float m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0}, keep[2];
};

// Scores to weights of base 2; `keep` gets what earlier sums are multiplied with.
__device__ inline void weigh(float (&scores)[kKeys / 2], const AttentionTask& task, int first_key, bool hides,
                             Weighing& rows) {
  if (hides) {
    const int lane_key = first_key + threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i) {
      const int position = rows.position[i / 2 % 2], key = lane_key + i / 4 * 8 + i % 2;
      if (key > position || (task.sliding_window > 0 && key <= position - task.sliding_window))
        scores[i] = -INFINITY;
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    // Four chains, so that one need not wait for another.
    float largest[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY}, sum[4] = {};
    const auto at = [&](int i) -> float& { return scores[i / 2 * 4 + 2 * half + i % 2]; };
#pragma unroll
    for (int i = 0; i < kKeys / 4; ++i) largest[i % 4] = fmaxf(largest[i % 4], at(i));
    float most = fmaxf(fmaxf(largest[0], largest[1]), fmaxf(largest[2], largest[3]));
    most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
    most = fmaxf(most, __shfl_xor_sync(~0u, most, 2)) * task.scale;
    const bool moves = most > rows.m[half] + kSlack;
    const float next = moves ? most : rows.m[half], base = next == -INFINITY ? 0.f : next;
    rows.keep[half] = moves ? power_of_two(rows.m[half] - base) : 1.f;
    rows.m[half] = next;
#pragma unroll
    for (int i = 0; i < kKeys / 4; ++i) {
      at(i) = power_of_two(__fmaf_rn(at(i), task.scale, -base));
      sum[i % 4] += at(i);
    }
    rows.l[half] = __fmaf_rn(rows.l[half], rows.keep[half], (sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
}

// `place` of the rings' next tile.
template <int kDim>
__device__ void attend(const AttentionTask& task, const Work& work, const char* queries, const char* tiles,
                       Ring& keys, Ring& values, RingPlace& place, Weighing& rows,
                       float (&sums)[kDim / 64][32]) {
  using L = Layout<kDim>;
  const int group = threadIdx.x / 128;
  const bool signals = threadIdx.x % 128 == 0;
  float scores[kKeys / 2];
  std::uint32_t weights[kKeys / 4] = {};
  const std::uint32_t q = tile_descriptor(queries) + group * (64 * 128 >> 4);
  const auto multiply_keys = [&](int stage) {
    const std::uint32_t k = tile_descriptor(tiles + stage * 2 * L::kTileBytes);
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      const int at = step / 4 * (L::kHalfBytes >> 4) + step % 4 * 2;
      WarpgroupProduct<Operand::kBf16, kKeys>::add(scores, q + at, k + at, step > 0);
    }
    products_commit();
  };
  const auto multiply_values = [&](int stage) {
    const char* at = tiles + stage * 2 * L::kTileBytes + L::kTileBytes;
#pragma unroll
    for (int half = 0; half < L::kHalves; ++half) {
      const std::uint32_t v = transposed_tile_descriptor(at + half * L::kHalfBytes);
#pragma unroll
      for (int step = 0; step < kKeys / 16; ++step)
        RegisterProduct<64, true>::add(sums[half], weights + 4 * step, v + step * (2048 >> 4), 1);
    }
    products_commit();
  };
  const auto pack = [&] {
#pragma unroll
    for (int i = 0; i < kKeys / 4; ++i) weights[i] = pair_of(scores[2 * i], scores[2 * i + 1]);
  };
  const auto hides = [&](int tile) {
    return (tile + 1) * kKeys - 1 > work.first_position ||
           (task.sliding_window > 0 && tile * kKeys <= work.last_position - task.sliding_window);
  };
  const auto hold_sums = [&] {
#pragma unroll
    for (int half = 0; half < L::kHalves; ++half) hold(sums[half]);
  };

  barrier_wait(keys.full + place.stage, place.parity);
  sync_threads_of(kFirstTurn + group, kConsumers);
  products_begin();
  multiply_keys(place.stage);
  arrive_at(kFirstTurn + 1 - group, kConsumers);
  products_wait<0>();
  hold(scores);
  if (signals) barrier_arrive(keys.empty + place.stage);
  weigh(scores, task, work.first_tile * kKeys, hides(work.first_tile), rows);
  pack();
  RingPlace before = place;  // whose values are not yet multiplied
  place.advance(L::kStages);
  for (int tile = work.first_tile + 1; tile <= work.last_tile; ++tile) {
    barrier_wait(keys.full + place.stage, place.parity);
    barrier_wait(values.full + before.stage, before.parity);
    hold(weights);
    hold(scores);
    hold_sums();
    sync_threads_of(kFirstTurn + group, kConsumers);
    products_begin();
    multiply_keys(place.stage);
    multiply_values(before.stage);
    arrive_at(kFirstTurn + 1 - group, kConsumers);
    products_wait<1>();
    hold(scores);
    if (signals) barrier_arrive(keys.empty + place.stage);
    weigh(scores, task, tile * kKeys, hides(tile), rows);
    products_wait<0>();
    hold_sums();
    hold(weights);
    if (signals) barrier_arrive(values.empty + before.stage);
    if (__any_sync(~0u, rows.keep[0] != 1 || rows.keep[1] != 1)) {
#pragma unroll
      for (int half = 0; half < L::kHalves; ++half)
#pragma unroll
        for (int i = 0; i < 32; ++i) sums[half][i] *= rows.keep[i / 2 % 2];
    }
    pack();
    before = place;
    place.advance(L::kStages);
  }
  barrier_wait(values.full + before.stage, before.parity);
  hold(weights);
  hold_sums();
  products_begin();
  multiply_values(before.stage);
  products_wait<0>();
  hold_sums();
  hold(weights);
  if (signals) barrier_arrive(values.empty + before.stage);
}

template <int kDim>
__device__ void write_rows(const AttentionTask& task, const Work& work, const Weighing& rows,
                           const float (&sums)[kDim / 64][32]) {
  const int lane = threadIdx.x % 32, warp_row = threadIdx.x / 32 * 16;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float l = rows.l[half];
    l += __shfl_xor_sync(~0u, l, 1);
    l += __shfl_xor_sync(~0u, l, 2);
    const int row = warp_row + lane / 4 + half * 8, query = row / task.heads;
    if (query >= work.span.count) continue;
    const float inverse = 1.f / l;
    const std::int64_t at = (work.span.first + query) * task.out_stride +
                            (work.kv_head * task.heads + row % task.heads) * kDim + lane % 4 * 2;
#pragma unroll
    for (int d = 0; d < kDim / 64; ++d)
#pragma unroll
      for (int i = 0; i < 8; ++i)
        store_two(task.out, at + d * 64 + i * 8, sums[d][4 * i + 2 * half] * inverse,
                  sums[d][4 * i + 2 * half + 1] * inverse);
  }
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, 1)
    prompt_attention_kernel(const __grid_constant__ AttentionTask task) {
  using L = Layout<kDim>;
  extern __shared__ char memory[];
  __shared__ Ring keys, values;
  char* queries = memory + (1024 - shared_address(memory) % 1024) % 1024;
  char* tiles = queries + L::kTileBytes;
  let_next_kernel_begin();
  if (threadIdx.x == 0) {
    for (Ring* ring : {&keys, &values})
      for (int stage = 0; stage < L::kStages; ++stage) {
        barrier_init(ring->full + stage, 1);
        barrier_init(ring->empty + stage, 2);
      }
    barrier_init_visible();
  }
  __syncthreads();
  wait_for_earlier_kernels();
  const int works = task.prompt_spans * static_cast<int>(task.cache.num_kv_heads);
  RingPlace place;
  if (threadIdx.x >= kConsumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    if (threadIdx.x >= kConsumers + 64) return;
    for (int round = 0; round * static_cast<int>(gridDim.x) < works; ++round) {
      const Work work = find_work(task, work_index(round));
      if (work.span.count == 0) continue;
      if (threadIdx.x < kConsumers + 32)
        produce<kDim, false>(task, work, tiles, keys, place);
      else
        produce<kDim, true>(task, work, tiles, values, place);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    if (threadIdx.x >= 128) arrive_at(kFirstTurn, kConsumers);  // the first turn is the first warpgroup's
    for (int round = 0; round * static_cast<int>(gridDim.x) < works; ++round) {
      const Work work = find_work(task, work_index(round));
      if (work.span.count == 0) continue;
      load_queries<kDim>(task, work, queries);
      Weighing rows;
      const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, last = work.span.count - 1;
#pragma unroll
      for (int half = 0; half < 2; ++half)
        rows.position[half] = work.first_position + min((row + half * 8) / task.heads, last);
      float sums[L::kHalves][32];
#pragma unroll
      for (int half = 0; half < L::kHalves; ++half)
#pragma unroll
        for (int i = 0; i < 32; ++i) sums[half][i] = 0;
      attend<kDim>(task, work, queries, tiles, keys, values, place, rows, sums);
      write_rows<kDim>(task, work, rows, sums);
    }
  }
}

unsigned multiprocessors() {
  static const unsigned count = [] {
    int device = 0, count = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    return static_cast<unsigned>(count);
  }();
  return count;
}

template <int kDim>
void start(const AttentionTask& task, cudaStream_t stream) {
  const auto kernel = prompt_attention_kernel<kDim>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Layout<kDim>::kBytes);
  (void)allowed;  // the launch fails if this did
  const auto works = static_cast<unsigned>(task.prompt_spans * task.cache.num_kv_heads);
  launch(kernel, std::min(works, multiprocessors()), kThreads, Layout<kDim>::kBytes, stream, task);
}

}  // namespace

void prompt_attention(const AttentionTask& task, cudaStream_t stream) {
  if (task.cache.head_dim == 64)
    start<64>(task, stream);
  else
    start<128>(task, stream);
}

}  // namespace bise::cuda
