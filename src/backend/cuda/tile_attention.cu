// Flash attention (Dao 2022; Shah et al. 2024): a warpgroup holds 64 rows, a row being one query of one of
// the heads that share a KV head, and takes tiles of 64 keys: scores, online softmax, weighted values, the
// scores of the next tile being multiplied while the values of this one are. One more warpgroup brings keys
// and values from the cache's blocks into a ring of shared memory, by the copy engine where it can.
//
// The context is cut at multiples of kSplit positions. Each part gives a maximum, a sum and weighted values,
// joined from the first to the last: by the one block that computed them (sequences with many queries) or by
// the last to finish of the blocks that had one part each (few queries). A row sees the same tiles and the
// same arithmetic in both, so its result depends on nothing else.
#include "backend/cuda/tile_attention.h"

#include <algorithm>

#include "backend/cuda/attention_task.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/streamed_linear.h"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {
namespace {

constexpr int kTileKeys = 64, kGroupRows = 64;
constexpr int kSplit = 512, kSplitTiles = kSplit / kTileKeys;
constexpr int kProducers = 128;
// Barriers of the block: 0 of all threads, 1 of consumers, 2 of producers, and of the warpgroups' turns.
constexpr int kFirstTurn = 3;
// Sequences times KV heads; each pair counts the parts that have been computed.
constexpr std::int64_t kMostCounters = kAttentionCounterBytes / sizeof(int);

// kGroups warpgroups of rows; kDim is the head's dimension rounded up to 64.
template <int kGroups, int kDim>
struct Layout {
  static constexpr bool kDividesContext = kGroups == 1;  // its parts are joined by another block
  static constexpr int kThreads = kGroups * 128 + kProducers;
  [[maybe_unused]] static constexpr int kRows = kGroups * kGroupRows;
  static constexpr int kHalves = kDim / 64;           // of 128 bytes, as wide as a swizzled row
  static constexpr int kHalfBytes = kTileKeys * 128;  // of a tile of keys or queries
  static constexpr int kTileBytes = kHalves * kHalfBytes;
  static constexpr int kStages = kDividesContext ? 3 : 4;
  static constexpr int kJoinedFloats = kDividesContext ? 0 : kDim / 2 * 128;  // of a warpgroup
  static constexpr int kBytes = kStages * 2 * kTileBytes + kGroups * kJoinedFloats * 4 + 1024;
  // Registers of a thread; a multiprocessor has 65536, shared by two blocks where the context is divided.
  static constexpr int kConsumerRegisters = kDividesContext ? 184 : 216;
  static constexpr int kProducerRegisters = kDividesContext ? 64 : 72;
};

// What a block computes: a span of queries of one KV head, over tiles [first_tile, last_tile] of keys.
struct Work {
  Span span;
  int kv_head = 0, first_position = 0, last_position = 0;
  int first_tile = 0, last_tile = -1;
  int split = 0, parts = 1;  // of a divided context: the block's own, counted from the first, and how many
};

template <class L>
__device__ inline Work find_work(const AttentionTask& task) {
  Work work;
  work.kv_head = blockIdx.y;
  if constexpr (L::kDividesContext) {
    const int s = blockIdx.z;
    if (!is_divided(task, s)) return work;
    work.span = {s, task.step.query_starts[s], task.step.query_starts[s + 1] - task.step.query_starts[s]};
  } else {
    // The last queries of a prompt, which see the most keys, come first.
    work.span = find_span(task, gridDim.x - 1 - blockIdx.x, L::kRows / task.heads);
  }
  if (work.span.count == 0) return work;
  work.first_position = task.step.positions[work.span.first];
  work.last_position = work.first_position + work.span.count - 1;
  const int visible = task.sliding_window > 0 ? max(0, work.first_position - task.sliding_window + 1) : 0;
  work.first_tile = visible / kTileKeys;
  work.last_tile = work.last_position / kTileKeys;
  if constexpr (L::kDividesContext) {
    const int first_split = visible / kSplit;
    work.parts = work.last_position / kSplit - first_split + 1;
    work.split = blockIdx.x;
    const int split = first_split + work.split;
    if (work.split >= work.parts) {
      work.span.count = 0;
      return work;
    }
    work.first_tile = max(work.first_tile, split * kSplitTiles);
    work.last_tile = min(work.last_tile, (split + 1) * kSplitTiles - 1);
  }
  return work;
}

// Where 16 bytes of row `row` and column chunk `chunk` of 8 values stand in a tile, as the copy engine would
// swizzle them.
__device__ inline int swizzled(int row, int chunk) {
  return chunk / 8 * kTileKeys * 128 + row * 128 + ((chunk % 8 ^ row % 8) << 4);
}

__device__ inline std::uint32_t load_pair(const float* p) {
  const float2 pair = *reinterpret_cast<const float2*>(p);
  return pair_of(pair.x, pair.y);
}
__device__ inline std::uint32_t load_pair(const bf16* p) {
  return *reinterpret_cast<const std::uint32_t*>(p);
}

// Eight e4m3 codes as bf16.
__device__ inline uint4 eight_values(uint2 codes) {
  const std::uint32_t words[2] = {codes.x, codes.y};
  uint4 out;
  std::uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const auto two = static_cast<__nv_fp8x2_storage_t>(words[i / 2] >> (i % 2 * 16));
    const float2 values = __half22float2(__half2(__nv_cvt_fp8x2_to_halfraw2(two, __NV_E4M3)));
    pairs[i] = pair_of(values.x, values.y);
  }
  out = {pairs[0], pairs[1], pairs[2], pairs[3]};
  return out;
}

// Brings the tiles of `work` into the ring, key tile and value tile together. Positions outside those that
// any row sees become zeros: unwritten memory may hold anything, and zero weights would not hide it. Whole
// tiles come by the copy engine, asked by one warp, those at the ends by copies of all threads.
template <class L, class C>
class Producer {
 public:
  __device__ Producer(const AttentionTask& task, const Work& work, char* ring, std::uint64_t* full,
                      std::uint64_t* empty)
      : task_(task),
        work_(work),
        ring_(ring),
        full_(full),
        empty_(empty),
        blocks_(task.step.block_table +
                (work.span.sequence * task.step.groups + task.group) * task.step.blocks_per_sequence),
        visible_(task.sliding_window > 0 ? max(0, work.first_position - task.sliding_window + 1) : 0) {}

  __device__ void run() {
    const bool in_boxes = std::is_same_v<C, bf16> && task_.in_boxes;
    bool has_waited = false;
    int tile = work_.first_tile;
    const auto wait_for_keys_of = [&](int tile) {
      // Keys of the step itself were stored by the kernel before this one.
      if (has_waited || (tile + 1) * kTileKeys <= work_.first_position) return;
      wait_for_earlier_kernels();
      has_waited = true;
    };
    while (tile <= work_.last_tile) {
      if (in_boxes && is_whole(tile)) {
        int end = tile + 1;
        while (end <= work_.last_tile && is_whole(end)) ++end;
        if (thread() < 32) {
          find_box(tile);
          for (; tile < end; ++tile) {
            wait_for_keys_of(tile);
            wait_for_place(tile);
            fetch_boxes(tile, tile + 1 < end);
          }
        }
        tile = end;
      } else {
        wait_for_keys_of(tile);
        if (thread() < 32) wait_for_place(tile);
        sync_threads_of(2, kProducers);
        copy_rows(tile);
        writes_visible_to_products();
        sync_threads_of(2, kProducers);
        if (thread() == 0) barrier_arrive(full_ + stage_of(tile));
        ++tile;
      }
    }
  }

 private:
  static constexpr int kChunks = L::kHalves * 8, kStep = kProducers / kChunks, kRows = kTileKeys / kStep;

  static __device__ int thread() { return threadIdx.x % kProducers; }
  __device__ int stage_of(int tile) const {
    return static_cast<int>(static_cast<unsigned>(tile - work_.first_tile) % L::kStages);
  }
  __device__ bool is_whole(int tile) const {
    return tile * kTileKeys >= visible_ && (tile + 1) * kTileKeys - 1 <= work_.last_position;
  }
  __device__ char* place_of(int tile) const { return ring_ + stage_of(tile) * 2 * L::kTileBytes; }
  __device__ void wait_for_place(int tile) const {
    const int use = tile - work_.first_tile;
    if (use >= L::kStages) barrier_wait(empty_ + stage_of(tile), (use / L::kStages - 1) % 2);
  }

  // Boxes of a tile: 64 columns of a block's rows, of keys and of values. Lane i has the i-th, i + 32-nd...
  __device__ int box_rows() const { return min(1 << task_.block_shift, kTileKeys); }
  __device__ void find_box(int tile) {
    const int first = tile * kTileKeys, row = threadIdx.x % 32 / (2 * L::kHalves) * box_rows();
    if (row < kTileKeys) {
      const int shift = task_.block_shift, key = first + row;
      next_row_ = (blocks_[key >> shift] << shift) + (key & ((1 << shift) - 1));
    }
  }
  __device__ void fetch_boxes(int tile, bool more) {
    const int lane = threadIdx.x % 32, stage = stage_of(tile), from = next_row_;
    if (lane == 0) barrier_expect_bytes(full_ + stage, 2 * L::kTileBytes);
    __syncwarp();
    const int half = lane / 2 % L::kHalves, row = lane / (2 * L::kHalves) * box_rows();
    if (row < kTileKeys) {
      const bool is_value = lane % 2;
      char* to = place_of(tile) + (is_value ? L::kTileBytes : 0) + half * L::kHalfBytes + row * 128;
      const int column = work_.kv_head * static_cast<int>(task_.cache.head_dim) + half * 64;
      // Blocks of the same sequence read them again, but for those that divide its context.
      copy_tile(to, is_value ? &task_.value_tiles : &task_.key_tiles, column, from, full_ + stage,
                L::kDividesContext ? read_once_policy() : read_often_policy());
    }
    if (more) find_box(tile + 1);
  }

  __device__ void copy_rows(int tile) const {
    const int chunk = thread() % kChunks, first_row = thread() / kChunks;
    const CacheView& cache = task_.cache;
    const int head_dim = static_cast<int>(cache.head_dim), shift = task_.block_shift;
    const std::int64_t stride = cache.num_kv_heads * head_dim;
    const auto* keys = static_cast<const C*>(cache.keys) + work_.kv_head * head_dim + chunk * 8;
    const auto* values = static_cast<const C*>(cache.values) + work_.kv_head * head_dim + chunk * 8;
    char *key_tile = place_of(tile), *value_tile = key_tile + L::kTileBytes;
    int slots[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int key = tile * kTileKeys + first_row + i * kStep;
      const int block = blocks_[min(max(key, visible_), work_.last_position) >> shift];
      const bool is_there = chunk * 8 < head_dim && key >= visible_ && key <= work_.last_position;
      slots[i] = is_there ? (block << shift) + (key & ((1 << shift) - 1)) : -1;
    }
    if constexpr (std::is_same_v<C, bf16>) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int to = swizzled(first_row + i * kStep, chunk);
        const std::int64_t from = max(slots[i], 0) * stride;
        const int bytes = slots[i] < 0 ? 0 : 16;
        copy_16(shared_address(key_tile + to), keys + from, bytes);
        copy_16(shared_address(value_tile + to), values + from, bytes);
      }
      copies_commit();
      copies_wait<0>();
    } else {
      uint2 codes[2][kRows];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const std::int64_t from = max(slots[i], 0) * stride;
        codes[0][i] = slots[i] < 0 ? uint2{0, 0} : *reinterpret_cast<const uint2*>(keys + from);
        codes[1][i] = slots[i] < 0 ? uint2{0, 0} : *reinterpret_cast<const uint2*>(values + from);
      }
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const int to = swizzled(first_row + i * kStep, chunk);
        *reinterpret_cast<uint4*>(key_tile + to) = eight_values(codes[0][i]);
        *reinterpret_cast<uint4*>(value_tile + to) = eight_values(codes[1][i]);
      }
    }
  }

  const AttentionTask& task_;
  const Work& work_;
  char* ring_;
  std::uint64_t *full_, *empty_;
  const std::int32_t* blocks_;
  int visible_;
  int next_row_ = 0;  // of the cache, where the lane's next box begins
};

// A thread's part of its warpgroup's rows, in bf16: operand A of warpgroup products, 16 columns a step.
template <class L>
struct Queries {
  std::uint32_t pairs[L::kHalves * 4][4];
};
template <class L, class T>
__device__ void load_queries(const AttentionTask& task, const Work& work, int group, Queries<L>& queries) {
  const int head_dim = static_cast<int>(task.cache.head_dim), lane = threadIdx.x % 32;
  const std::int64_t columns = (task.num_heads + 2 * task.cache.num_kv_heads) * head_dim;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = group * kGroupRows + threadIdx.x / 32 % 4 * 16 + lane / 4 + half * 8;
    const int query = row / task.heads, head = row % task.heads;
    const T* from = static_cast<const T*>(task.qkv) + (work.span.first + query) * columns +
                    (work.kv_head * task.heads + head) * head_dim;
#pragma unroll
    for (int i = 0; i < L::kHalves * 8; ++i) {
      const int column = i * 8 + lane % 4 * 2;
      std::uint32_t pair = 0;
      if (query < work.span.count && column < head_dim) pair = load_pair(from + column);
      queries.pairs[i / 2][i % 2 * 2 + half] = pair;
    }
  }
}

// The rows of a thread, `warp row + lane / 4` and 8 further down.
struct Rows {
  int position[2];  // the last key each sees
  bool any;         // whether the warp has a row at all
};

// Joins the part (sum2, m2, l2) to what came before: the same two operations everywhere.
struct Factors {
  float keep, add, m, l;
};
__device__ inline Factors join_factors(float m, float l, float m2, float l2) {
  if (l2 == 0) return {1, 0, m, l};  // a part that the row does not see
  if (l == 0) return {0, 1, m2, l2};
  const float largest = fmaxf(m, m2), keep = power_of_two(m - largest), add = power_of_two(m2 - largest);
  return {keep, add, largest, __fmaf_rn(l, keep, __fmul_rn(l2, add))};
}
__device__ inline float join_sums(float sum, float sum2, const Factors& f) {
  return __fmaf_rn(sum, f.keep, __fmul_rn(sum2, f.add));
}

// Scores to weights of base 2: hides what a row does not see, moves the maxima, adds to the sums. `keep`
// gets what earlier sums are multiplied with.
__device__ inline void weigh(float (&scores)[32], const AttentionTask& task, const Rows& rows, int tile,
                             bool hides, float (&m)[2], float (&l)[2], float (&keep)[2]) {
  const int t = threadIdx.x % 4;
  if (hides) {
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int half = i / 2 % 2, key = tile * kTileKeys + i / 4 * 8 + 2 * t + i % 2;
      const int position = rows.position[half];
      if (key > position || (task.sliding_window > 0 && key <= position - task.sliding_window))
        scores[i] = -INFINITY;
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float largest = scores[2 * half];
#pragma unroll
    for (int i = 0; i < 16; ++i) largest = fmaxf(largest, scores[i / 2 * 4 + 2 * half + i % 2]);
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
    const float next = fmaxf(m[half], largest * task.scale);
    const float base = next == -INFINITY ? 0.f : next;
    keep[half] = power_of_two(m[half] - base);
    m[half] = next;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& score = scores[i / 2 * 4 + 2 * half + i % 2];
      score = power_of_two(__fmaf_rn(score, task.scale, -base));
      sum += score;
    }
    l[half] = __fmaf_rn(l[half], keep[half], sum);
  }
}

__device__ inline void pack_weights(const float (&scores)[32], std::uint32_t (&weights)[16]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) weights[i] = pair_of(scores[2 * i], scores[2 * i + 1]);
}

// Attention of a warpgroup's rows over tiles [first, end); `base_use` counts the ring's uses. Leaves sums
// that are not yet divided by l.
template <class L>
__device__ void attend(const AttentionTask& task, const Work& work, const Rows& rows, Queries<L>& queries,
                       const char* ring, std::uint64_t* full, std::uint64_t* empty, int first, int end,
                       float (&sums)[L::kHalves][32], float (&m)[2], float (&l)[2]) {
  float scores[32], keep[2];
  std::uint32_t weights[16] = {};
  const auto stage_of = [&](int tile) { return static_cast<unsigned>(tile - work.first_tile) % L::kStages; };
  const auto wait_for = [&](int tile) {
    barrier_wait(full + stage_of(tile), static_cast<unsigned>(tile - work.first_tile) / L::kStages % 2);
  };
  // With two warpgroups, one multiplies while the other weighs (Shah et al. 2024, section 3.1): each waits
  // for its turn to ask for products and then lets the other ask.
  const auto wait_for_turn = [&] {
    if constexpr (!L::kDividesContext) sync_threads_of(kFirstTurn + threadIdx.x / 128, 256);
  };
  const auto pass_turn = [&] {
    if constexpr (!L::kDividesContext) arrive_at(kFirstTurn + 1 - threadIdx.x / 128, 256);
  };
  const auto multiply_keys = [&](int tile) {
    const std::uint32_t k = tile_descriptor(ring + stage_of(tile) * 2 * L::kTileBytes);
#pragma unroll
    for (int step = 0; step < L::kHalves * 4; ++step)
      RegisterProduct<64, false>::add(scores, queries.pairs[step],
                                      k + step / 4 * (L::kHalfBytes >> 4) + step % 4 * 2, step > 0);
    products_commit();
  };
  const auto multiply_values = [&](int tile) {
    const char* values = ring + stage_of(tile) * 2 * L::kTileBytes + L::kTileBytes;
#pragma unroll
    for (int half = 0; half < L::kHalves; ++half) {
      const std::uint32_t v = transposed_tile_descriptor(values + half * L::kHalfBytes);
#pragma unroll
      for (int step = 0; step < 4; ++step)
        RegisterProduct<64, true>::add(sums[half], weights + 4 * step, v + step * (2048 >> 4),
                                       tile > first || step > 0);
    }
    products_commit();
  };
  // Rows of the block see different keys where the tile reaches beyond the first row's position or begins
  // before what the last row's window leaves.
  const auto hides = [&](int tile) {
    return (tile + 1) * kTileKeys - 1 > work.first_position ||
           (task.sliding_window > 0 && tile * kTileKeys <= work.last_position - task.sliding_window);
  };
  const auto hold_sums = [&] {
#pragma unroll
    for (int half = 0; half < L::kHalves; ++half) hold(sums[half]);
  };

  wait_for(first);
  wait_for_turn();
  products_begin();
  multiply_keys(first);
  pass_turn();
  products_wait<0>();
  hold(scores);
  if (rows.any) {
    weigh(scores, task, rows, first, hides(first), m, l, keep);
    pack_weights(scores, weights);
  }
  for (int tile = first + 1; tile < end; ++tile) {
    wait_for(tile);
    hold(weights);
    hold(scores);
    hold_sums();
    wait_for_turn();
    products_begin();
    multiply_keys(tile);
    multiply_values(tile - 1);
    pass_turn();
    products_wait<1>();
    hold(scores);
    if (rows.any) weigh(scores, task, rows, tile, hides(tile), m, l, keep);
    products_wait<0>();
    hold_sums();
    hold(weights);
    if (threadIdx.x % 128 == 0) barrier_arrive(empty + stage_of(tile - 1));
    if (rows.any) {
      // Maxima seldom move after the first tiles.
      if (__any_sync(~0u, keep[0] != 1 || keep[1] != 1)) {
#pragma unroll
        for (int half = 0; half < L::kHalves; ++half)
#pragma unroll
          for (int i = 0; i < 32; ++i) sums[half][i] *= keep[i / 2 % 2];
      }
      pack_weights(scores, weights);
    }
  }
  hold(weights);
  hold_sums();
  products_begin();
  multiply_values(end - 1);
  products_wait<0>();
  hold_sums();
  if (threadIdx.x % 128 == 0) barrier_arrive(empty + stage_of(end - 1));
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    l[half] += __shfl_xor_sync(~0u, l[half], 1);
    l[half] += __shfl_xor_sync(~0u, l[half], 2);
  }
}

// Calls body(at_row(row of the block), half of the thread's rows, column, two sums) for the rows and columns
// there are.
template <class L, class AtRow, class Body>
__device__ void each_two_sums(const AttentionTask& task, const Work& work, int group,
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
        if (column < task.cache.head_dim)
          body(at, half, column, sums[d][4 * i + 2 * half], sums[d][4 * i + 2 * half + 1]);
      }
  }
}

__device__ inline std::int64_t out_index(const AttentionTask& task, const Work& work, int row) {
  return (work.span.first + row / task.heads) * task.out_stride +
         (work.kv_head * task.heads + row % task.heads) * task.cache.head_dim;
}

template <class L>
__device__ void write_rows(const AttentionTask& task, const Work& work, int group,
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
__device__ void join_blocks(const AttentionTask& task, const Work& work, const float (&sums)[L::kHalves][32],
                            const float (&m)[2], const float (&l)[2]) {
  const int head_dim = static_cast<int>(task.cache.head_dim), width = head_dim + 2;
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
      const Factors f = join_factors(largest, total, ends.x, ends.y);
      sum = {join_sums(sum.x, other.x, f), join_sums(sum.y, other.y, f)};
      largest = f.m;
      total = f.l;
    }
    const float inverse = task.cache.value_scale / total;
    store_two(task.out, out_index(task, work, row) + column, sum.x * inverse, sum.y * inverse);
  }
}

template <class L>
__device__ void consume(const AttentionTask& task, const Work& work, int group, Queries<L>& queries,
                        const char* ring, float* joined, std::uint64_t* full, std::uint64_t* empty) {
  const int lane = threadIdx.x % 32, warp_row = group * kGroupRows + threadIdx.x / 32 % 4 * 16;
  const int all_rows = work.span.count * task.heads;
  Rows rows;
  rows.any = warp_row < all_rows;
#pragma unroll
  for (int half = 0; half < 2; ++half)
    rows.position[half] =
        work.first_position + min(warp_row + lane / 4 + half * 8, all_rows - 1) / task.heads;

  float sums[L::kHalves][32], m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0};
#pragma unroll
  for (int half = 0; half < L::kHalves; ++half)
#pragma unroll
    for (int i = 0; i < 32; ++i) sums[half][i] = 0;
  if constexpr (L::kDividesContext) {
    attend<L>(task, work, rows, queries, ring, full, empty, work.first_tile, work.last_tile + 1, sums, m, l);
    if (work.parts > 1)
      join_blocks<L>(task, work, sums, m, l);
    else
      write_rows<L>(task, work, group, sums, l);
  } else {
    float joined_m[2] = {-INFINITY, -INFINITY}, joined_l[2] = {0, 0};
    float* mine = joined + threadIdx.x % 128;
    for (int tile = work.first_tile; tile <= work.last_tile;) {
      const int end = min(work.last_tile + 1, (tile / kSplitTiles + 1) * kSplitTiles);
      m[0] = m[1] = -INFINITY;
      l[0] = l[1] = 0;
      attend<L>(task, work, rows, queries, ring, full, empty, tile, end, sums, m, l);
      const bool is_first = tile == work.first_tile, is_last = end > work.last_tile;
      tile = end;
      if (is_first && is_last) {
        joined_l[0] = l[0];
        joined_l[1] = l[1];
        break;
      }
      Factors f[2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        f[half] = join_factors(joined_m[half], joined_l[half], m[half], l[half]);
        joined_m[half] = f[half].m;
        joined_l[half] = f[half].l;
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
    write_rows<L>(task, work, group, sums, joined_l);
  }
}

template <int kGroups, int kDim, class T, class C>
__global__ void __launch_bounds__(Layout<kGroups, kDim>::kThreads, kGroups == 1 ? 2 : 1)
    tile_attention_kernel(const __grid_constant__ AttentionTask task) {
  using L = Layout<kGroups, kDim>;
  extern __shared__ char memory[];
  __shared__ std::uint64_t full[L::kStages], empty[L::kStages];
  char* ring = memory + (1024 - shared_address(memory) % 1024) % 1024;
  float* joined = reinterpret_cast<float*>(ring + L::kStages * 2 * L::kTileBytes);
  let_next_kernel_begin();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < L::kStages; ++stage) {
      barrier_init(full + stage, 1);
      barrier_init(empty + stage, kGroups);
    }
    barrier_init_visible();
  }
  __syncthreads();
  // The step's numbers were there before its first kernel.
  const Work work = find_work<L>(task);
  if (work.span.count == 0) return wait_for_earlier_kernels();
  if (threadIdx.x >= kGroups * 128) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(L::kProducerRegisters));
    Producer<L, C>(task, work, ring, full, empty).run();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(L::kConsumerRegisters));
    const int group = threadIdx.x / 128;
    wait_for_earlier_kernels();
    if (kGroups == 2 && group == 1) arrive_at(kFirstTurn, 256);  // the first turn is the first warpgroup's
    Queries<L> queries;
    load_queries<L, T>(task, work, group, queries);
    consume<L>(task, work, group, queries, ring, joined + group * L::kJoinedFloats, full, empty);
  }
}

template <int kGroups, int kDim, class T, class C>
void start(const AttentionTask& task, dim3 grid, cudaStream_t stream) {
  using L = Layout<kGroups, kDim>;
  const auto kernel = tile_attention_kernel<kGroups, kDim, T, C>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, L::kBytes);
  (void)allowed;  // the launch fails if this did
  launch(kernel, grid, L::kThreads, L::kBytes, stream, task);
}

// Sequences of at most so many queries have their context divided among blocks: all, where that is few, else
// those that decode.
int most_divided_queries(const StepView& step, std::int64_t heads) {
  return step.longest_query * heads <= kGroupRows ? static_cast<int>(step.longest_query) : 1;
}

int splits_of(const StepView& step) {
  return static_cast<int>((step.longest_context + kSplit - 1) / kSplit);
}

}  // namespace

bool supports_tile_attention(std::int64_t num_heads, const StepView& step, const CacheView& cache) {
  const std::int64_t size = cache.block_size;
  return cache.head_dim <= 128 && cache.head_dim % 8 == 0 && num_heads / cache.num_kv_heads <= kGroupRows &&
         (size & (size - 1)) == 0 && cache.type != Float::kF32 &&
         step.sequences * cache.num_kv_heads <= kMostCounters;
}

std::size_t tile_attention_workspace(const StepView& step, std::int64_t num_heads, const CacheView& cache) {
  const std::int64_t queries = most_divided_queries(step, num_heads / cache.num_kv_heads);
  return kAttentionCounterBytes + static_cast<std::size_t>(step.sequences * queries * num_heads *
                                                           splits_of(step) * (cache.head_dim + 2)) *
                                      sizeof(float);
}

void tile_attention(Values qkv, std::int64_t num_heads, const StepView& step, std::int64_t group,
                    std::int64_t sliding_window, const CacheView& cache, Values out, std::int64_t out_stride,
                    void* workspace, cudaStream_t stream) {
  const int heads = static_cast<int>(num_heads / cache.num_kv_heads);
  int block_shift = 0;
  while ((std::int64_t{1} << block_shift) < cache.block_size) ++block_shift;
  AttentionTask task{
      .key_tiles = {},
      .value_tiles = {},
      .in_boxes = false,
      .qkv = qkv.data,
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
      .splits = splits_of(step),
      .prompt_spans = static_cast<int>(step.tokens / (kPromptRows / heads) + step.sequences)};
  // Swizzled rows repeat after eight.
  if (cache.type == Float::kBf16 && cache.head_dim % 64 == 0 && cache.block_size >= 8) {
    const int rows = static_cast<int>(std::min<std::int64_t>(cache.block_size, kTileKeys));
    const std::int64_t slots = cache.num_blocks * cache.block_size;
    const std::int64_t stride = cache.num_kv_heads * cache.head_dim;
    task.key_tiles = tile_map(cache.keys, sizeof(bf16), slots, stride, rows);
    task.value_tiles = tile_map(cache.values, sizeof(bf16), slots, stride, rows);
    task.in_boxes = true;
  }
  const auto kv_heads = static_cast<unsigned>(cache.num_kv_heads);
  const dim3 divided(static_cast<unsigned>(task.splits), kv_heads, static_cast<unsigned>(step.sequences));
  const auto start_both = [&](auto dim, auto* rows, auto* kind) {
    constexpr int kDim = decltype(dim)::value;
    using T = std::remove_pointer_t<decltype(rows)>;
    using C = std::remove_pointer_t<decltype(kind)>;
    start<1, kDim, T, C>(task, divided, stream);
    if (step.longest_query <= task.most_queries) return;
    const std::int64_t queries = Layout<2, kDim>::kRows / heads;
    const dim3 whole(static_cast<unsigned>(step.tokens / queries + step.sequences), kv_heads);
    static_assert(Layout<2, kDim>::kRows == kPromptRows);
    if (std::is_same_v<T, bf16> && task.in_boxes && step.tokens >= kPromptTokens)
      return prompt_attention(task, stream);
    start<2, kDim, T, C>(task, whole, stream);
  };
  const auto with_dim = [&](auto* rows, auto* kind) {
    if (cache.head_dim <= 64)
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
