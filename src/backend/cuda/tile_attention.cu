// Flash attention (Dao 2022; Shah et al. 2024): a warpgroup holds 64 rows, a row being one query of one of
// the heads that share a KV head, and takes tiles of 64 keys: scores, online softmax, weighted values, the
// scores of the next tile being multiplied while the values of this one are. Blocks stay and take one work
// after another: a warp of theirs finds works and asks the copy engine for their keys and values as far ahead
// as the rings of shared memory reach, and others make values that no row sees zeros and codes float16.
//
// The context is cut at multiples of kSplit positions. Each part gives a maximum, a sum and weighted values,
// joined from the first to the last: by the one block that computed them (sequences with many queries) or by
// the last to finish of the blocks that had one part each (few queries). A row sees the same tiles and the
// same arithmetic in both, so its result depends on nothing else.
#include "backend/cuda/tile_attention.h"

#include <algorithm>

#include "backend/cuda/attention_product.cuh"
#include "backend/cuda/attention_task.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/rotary.cuh"
#include "backend/cuda/streamed_linear.h"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {
namespace {

constexpr int kTileKeys = 64, kGroupRows = 64;
constexpr int kSplit = 512, kSplitTiles = kSplit / kTileKeys;
constexpr int kProducers = 128;
constexpr int kWorks = 2;  // that a block knows of at once
// Sequences times KV heads; each pair counts the parts that have been computed. One more counts works.
constexpr std::int64_t kMostCounters = kAttentionCounterBytes / sizeof(int) - 1;

// kGroups warpgroups of rows, heads of kDim dimensions, a cache of C.
template <int kGroups, int kDim, class C>
struct Layout {
  static constexpr bool kDividesContext = kGroups == 1;  // its parts are joined by another block
  static constexpr bool kConverts = std::is_same_v<C, std::uint8_t>;
  static constexpr int kHeadDim = kDim;
  static constexpr int kBlocks = kDividesContext ? 2 : 1;  // of a multiprocessor
  static constexpr int kThreads = kGroups * 128 + kProducers;
  [[maybe_unused]] static constexpr int kRows = kGroups * kGroupRows;
  static constexpr int kHalves = kDim / 64;           // of 128 bytes, as wide as a swizzled row
  static constexpr int kHalfBytes = kTileKeys * 128;  // of a tile of keys or values in bf16
  static constexpr int kTileBytes = kHalves * kHalfBytes;
  static constexpr int kStages = !kDividesContext ? 4 : kConverts ? 2 : 3;
  // Tiles as the copy engine brings them: codes have a ring of their own.
  static constexpr int kLandings = kConverts ? 2 : kStages;
  static constexpr int kLandedBytes = kConverts ? kTileKeys * kDim : kTileBytes;
  static constexpr int kFinishers = kConverts ? 3 : 1;                        // warps
  static constexpr int kJoinedFloats = kDividesContext ? 0 : kDim / 2 * 128;  // of a warpgroup
  static constexpr int kRingBytes = kStages * 2 * kTileBytes;
  static constexpr int kCodeBytes = kConverts ? kLandings * 2 * kLandedBytes : 0;
  static constexpr int kBytes = kRingBytes + kCodeBytes + kGroups * kJoinedFloats * 4 + 1024;
  // Registers of a thread; a multiprocessor has 65536, shared by two blocks where the context is divided.
  static constexpr int kConsumerRegisters = kDividesContext ? 184 : 216;
  static constexpr int kProducerRegisters = kDividesContext ? 64 : 72;
};

// What a block computes: a span of queries of one KV head, over tiles [first_tile, last_tile] of keys.
// Without queries when no work is left.
struct Work {
  Span span;
  int kv_head, first_position, last_position;
  int visible;  // the first key that any row sees
  int first_tile, last_tile;
  int split, parts;  // of a divided context: the block's own, counted from the first, and how many
};

template <class L, bool kTransposed>
using Product = std::conditional_t<L::kConverts, HalfProduct<kTransposed>, RegisterProduct<64, kTransposed>>;

template <class L>
struct Rings {
  std::uint64_t works_full[kWorks], works_empty[kWorks];
  std::uint64_t landed[L::kLandings], taken[L::kLandings];  // taken: of codes
  std::uint64_t full[L::kStages], empty[L::kStages];
  Work work[kWorks];
};

// The `index`-th of task.works; without queries where there is none. All lanes of a warp ask, those for
// divided contexts each for its own.
template <class L>
__device__ inline Work find_work(const AttentionTask& task, int index) {
  Work work = {};
  const int kv_heads = static_cast<int>(task.cache.num_kv_heads);
  if (index >= task.works) return work;
  if constexpr (L::kDividesContext) {
    const int pairs = static_cast<int>(task.step.sequences) * kv_heads, s = index % pairs / kv_heads;
    work.split = index / pairs;
    if (!is_divided(task, s)) return work;
    work.span = {s, task.step.query_starts[s], task.step.query_starts[s + 1] - task.step.query_starts[s]};
  } else {
    // The last queries of a prompt, which see the most keys, come first.
    work.span = find_span(task, (task.works - 1 - index) / kv_heads, L::kRows / task.heads);
  }
  if (work.span.count == 0) return work;
  work.kv_head = index % kv_heads;
  work.first_position = task.step.positions[work.span.first];
  work.last_position = work.first_position + work.span.count - 1;
  work.visible = task.sliding_window > 0 ? max(0, work.first_position - task.sliding_window + 1) : 0;
  work.first_tile = work.visible / kTileKeys;
  work.last_tile = work.last_position / kTileKeys;
  if constexpr (L::kDividesContext) {
    const int first_split = work.visible / kSplit, split = first_split + work.split;
    work.parts = work.last_position / kSplit - first_split + 1;
    work.first_tile = max(work.first_tile, split * kSplitTiles);
    work.last_tile = min(work.last_tile, (split + 1) * kSplitTiles - 1);
    if (work.split >= work.parts) work.span.count = 0;
  }
  return work;
}

// The next of the block's works, for all lanes of a warp.
template <class L>
__device__ inline Work next_work(Rings<L>& rings, RingPlace& at) {
  barrier_wait(rings.works_full + at.stage, at.parity);
  const Work work = rings.work[at.stage];
  __syncwarp();
  if (threadIdx.x % 32 == 0) barrier_arrive(rings.works_empty + at.stage);
  at.advance(kWorks);
  return work;
}

// Where 16 bytes of row `row` and column chunk `chunk` of 8 values stand in a tile, as the copy engine would
// swizzle them.
__device__ inline int swizzled(int row, int chunk) {
  return chunk / 8 * kTileKeys * 128 + row * 128 + ((chunk % 8 ^ row % 8) << 4);
}

__device__ inline float2 load_two(const float* p) {
  return *reinterpret_cast<const float2*>(p);
}
__device__ inline float2 load_two(const bf16* p) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(p));
}

// Two operands of products: bf16 as the cache, float16 with codes, which holds them as they are.
template <class L>
__device__ inline std::uint32_t operand_pair(float a, float b) {
  if constexpr (L::kConverts) {
    const __half2 pair = __floats2half2_rn(a, b);
    return reinterpret_cast<const std::uint32_t&>(pair);
  } else {
    return pair_of(a, b);
  }
}

// Eight e4m3 codes as float16; exact.
__device__ inline uint4 eight_values(uint2 codes) {
  const auto two = [](std::uint32_t code) {
    const __half2_raw pair = __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(code), __NV_E4M3);
    return reinterpret_cast<const std::uint32_t&>(pair);
  };
  return {two(codes.x & 0xffff), two(codes.x >> 16), two(codes.y & 0xffff), two(codes.y >> 16)};
}

// One warp: finds works and asks for the boxes of their tiles, each 64 columns (all of codes) of a block's
// keys or values. A lane has one box of a tile: lane i that of rows i / (2 kColumns), columns i / 2 %
// kColumns.
template <class L>
class Producer {
 public:
  __device__ Producer(const AttentionTask& task, char* landings, Rings<L>& rings)
      : task_(task), landings_(landings), rings_(rings) {}

  __device__ void run() {
    // Works without queries are passed over 32 at a time.
    constexpr int kLanes = L::kDividesContext ? 32 : 1;
    const int blocks = static_cast<int>(gridDim.x);
    for (int base = static_cast<int>(blockIdx.x); base < task_.works; base += kLanes * blocks) {
      const bool is_there = find_work<L>(task_, base + lane() % kLanes * blocks).span.count > 0;
      for (unsigned left = __ballot_sync(~0u, is_there && lane() < kLanes); left; left &= left - 1) {
        const Work work = find_work<L>(task_, base + (__ffs(static_cast<int>(left)) - 1) * blocks);
        publish(work);
        fetch(work);
      }
    }
    publish({});
  }

 private:
  static constexpr int kColumns = L::kConverts ? 1 : L::kHalves;
  static __device__ int lane() { return threadIdx.x % 32; }

  __device__ void publish(const Work& work) {
    barrier_wait(rings_.works_empty + at_.stage, at_.parity ^ 1);  // at first of a phase before the first
    if (lane() == 0) {
      rings_.work[at_.stage] = work;
      barrier_arrive(rings_.works_full + at_.stage);
    }
    __syncwarp();
    at_.advance(kWorks);
  }

  __device__ void fetch(const Work& work) {
    const std::int32_t* blocks =
        task_.step.block_table +
        (work.span.sequence * task_.step.groups + task_.group) * task_.step.blocks_per_sequence;
    const int shift = task_.block_shift, rows = min(1 << shift, kTileKeys);
    const int row = lane() / (2 * kColumns) * rows, column = lane() / 2 % kColumns;
    const bool is_value = lane() % 2;
    const auto slot_of = [&](int tile) {
      const int key = min(max(tile * kTileKeys + row, work.visible), work.last_position);
      return (blocks[key >> shift] << shift) + (key & ((1 << shift) - 1)) / rows * rows;
    };
    int next = slot_of(work.first_tile);  // looked up one tile ahead
    for (int tile = work.first_tile; tile <= work.last_tile; ++tile, landing_.advance(L::kLandings)) {
      const int key = tile * kTileKeys + row, slot = next;
      if (tile < work.last_tile) next = slot_of(tile + 1);
      // Keys of the step itself were stored by the kernel before this one, or are yet to come.
      if (!task_.angles && (tile + 1) * kTileKeys > work.first_position) wait_for_earlier_kernels();
      barrier_wait((L::kConverts ? rings_.taken : rings_.empty) + landing_.stage, landing_.parity ^ 1);
      std::uint64_t* landed = rings_.landed + landing_.stage;
      const bool is_seen = row < kTileKeys && key + rows > work.visible && key <= work.last_position;
      const int boxes = __popc(__ballot_sync(~0u, is_seen));
      if (lane() == 0) barrier_expect_bytes(landed, boxes * (L::kLandedBytes / kColumns / kTileKeys) * rows);
      __syncwarp();
      if (is_seen) {
        char* to = landings_ + (2 * landing_.stage + is_value) * L::kLandedBytes + column * L::kHalfBytes +
                   row * (L::kConverts ? L::kHeadDim : 128);
        // Blocks of the same sequence read them again, but for those that divide its context.
        copy_tile(to, is_value ? &task_.value_tiles : &task_.key_tiles,
                  work.kv_head * L::kHeadDim + column * 64, slot, landed,
                  L::kDividesContext ? read_once_policy() : read_often_policy());
      }
      __syncwarp();
    }
  }

  const AttentionTask& task_;
  char* landings_;
  Rings<L>& rings_;
  RingPlace at_, landing_;
};

// The key and value of the work's one query, which qkv has: the key turned, both in their row of the tile and
// in the cache, with the bits that rope_and_store() leaves there. By one warp, of which a lane has pairs
// (i, i + head_dim / 2) of dimensions.
template <class L, class C>
class OwnKey {
 public:
  __device__ OwnKey(const AttentionTask& task, const Work& work)
      : task_(task), row_(work.last_position % kTileKeys) {
    if (!has_pairs()) return;
    const int shift = task.block_shift, position = work.last_position;
    const std::int32_t* blocks =
        task.step.block_table +
        (work.span.sequence * task.step.groups + task.group) * task.step.blocks_per_sequence;
    const std::int64_t slot =
        (std::int64_t{blocks[position >> shift]} << shift) + (position & ((1 << shift) - 1));
    const int kv_heads = static_cast<int>(task.cache.num_kv_heads), heads = task.num_heads + 2 * kv_heads;
    cached_ = (slot * kv_heads + work.kv_head) * L::kHeadDim + pair();
    const bf16* key = static_cast<const bf16*>(task.qkv) +
                      (std::int64_t{work.span.first} * heads + task.num_heads + work.kv_head) * L::kHeadDim +
                      pair();
    const bf16* value = key + kv_heads * L::kHeadDim;
    wait_for_earlier_kernels();
    const float2 x = load_two(key), y = load_two(key + kHalf);
    value_[0] = load_two(value);
    value_[1] = load_two(value + kHalf);
    const float4 angle = *reinterpret_cast<const float4*>(task.angles + work.span.first * kHalf + pair());
    const float2 one = turned(x.x, y.x, angle.x, angle.y), two = turned(x.y, y.y, angle.z, angle.w);
    key_[0] = {one.x, two.x};
    key_[1] = {one.y, two.y};
  }
  __device__ void store_key(char* tile) const {
    store(key_, static_cast<C*>(task_.cache.keys), task_.cache.key_scale, tile);
  }
  __device__ void store_value(char* tile) const {
    store(value_, static_cast<C*>(task_.cache.values), task_.cache.value_scale, tile);
  }

 private:
  static constexpr int kHalf = L::kHeadDim / 2;
  static __device__ int pair() { return threadIdx.x % 32 * 2; }
  static __device__ bool has_pairs() { return pair() < kHalf; }

  __device__ void store(const float2 (&two)[2], C* cache, float scale, char* tile) const {
    if (!has_pairs()) return;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int column = pair() + i * kHalf;
      auto* in_tile = reinterpret_cast<std::uint32_t*>(tile + swizzled(row_, column / 8) + column % 8 * 2);
      if constexpr (L::kConverts) {
        const __nv_fp8x2_storage_t codes = __nv_cvt_float2_to_fp8x2(
            make_float2(__fdiv_rn(two[i].x, scale), __fdiv_rn(two[i].y, scale)), __NV_SATFINITE, __NV_E4M3);
        *reinterpret_cast<__nv_fp8x2_storage_t*>(cache + cached_ + i * kHalf) = codes;
        const __half2_raw halves = __nv_cvt_fp8x2_to_halfraw2(codes, __NV_E4M3);
        *in_tile = reinterpret_cast<const std::uint32_t&>(halves);
      } else {
        *in_tile = pair_of(two[i].x, two[i].y);
        *reinterpret_cast<std::uint32_t*>(cache + cached_ + i * kHalf) = *in_tile;
      }
    }
  }

  const AttentionTask& task_;
  int row_;
  std::int64_t cached_ = 0;
  float2 key_[2] = {}, value_[2] = {};
};

// L::kFinishers warps, of which this is the `warp`-th, make tiles that have landed what products take: codes
// become float16, values that no row sees zeros. Unwritten memory may hold anything, and zero weights would
// not hide it.
template <class L, class C>
__device__ void finish(const AttentionTask& task, Rings<L>& rings, char* ring, const char* landings,
                       int warp) {
  constexpr int kChunks = L::kHeadDim / 8;
  const int lane = threadIdx.x % 32, chunk = lane % kChunks;
  RingPlace works_at, landing, at;
  for (;;) {
    const Work work = next_work(rings, works_at);
    if (work.span.count == 0) return;
    for (int tile = work.first_tile; tile <= work.last_tile;
         ++tile, landing.advance(L::kLandings), at.advance(L::kStages)) {
      const int begin = max(work.visible - tile * kTileKeys, 0);
      const int end = min(work.last_position + 1 - tile * kTileKeys, kTileKeys);
      const bool has_own = task.angles && tile == work.last_position / kTileKeys;
      char *keys = ring + at.stage * 2 * L::kTileBytes, *values = keys + L::kTileBytes;
      barrier_wait(rings.landed + landing.stage, landing.parity);
      if constexpr (L::kConverts) {
        barrier_wait(rings.empty + at.stage, at.parity ^ 1);
        const char* codes = landings + landing.stage * 2 * L::kLandedBytes;
        // Eight rows at a time, so that where they stand repeats.
        for (int first = warp * 8; first < 2 * kTileKeys; first += L::kFinishers * 8) {
          constexpr int kRows = 32 / kChunks, kSteps = 8 / kRows;
          uint2 eight[kSteps];
#pragma unroll
          for (int i = 0; i < kSteps; ++i)
            eight[i] = *reinterpret_cast<const uint2*>(codes + first * L::kHeadDim + i * 256 + lane * 8);
          char* to = first < kTileKeys ? keys : values;
#pragma unroll
          for (int i = 0; i < kSteps; ++i) {
            const int key = first % kTileKeys + i * kRows + lane / kChunks;
            if (key < begin || key >= end) eight[i] = {0, 0};
            *reinterpret_cast<uint4*>(to + first % kTileKeys * 128 +
                                      swizzled(i * kRows + lane / kChunks, chunk)) = eight_values(eight[i]);
          }
          if (has_own && first % kTileKeys == (end - 1) / 8 * 8) {
            __syncwarp();
            const OwnKey<L, C> own(task, work);
            if (first < kTileKeys)
              own.store_key(keys);
            else
              own.store_value(values);
          }
        }
      } else if (begin > 0 || end < kTileKeys) {
        for (int row = lane / kChunks; row < kTileKeys; row += 32 / kChunks)
          if (row < begin || row >= end)
            *reinterpret_cast<uint4*>(values + swizzled(row, chunk)) = {0, 0, 0, 0};
      }
      if constexpr (!L::kConverts) {
        if (has_own) {
          const OwnKey<L, C> own(task, work);
          own.store_key(keys);
          own.store_value(values);
        }
      }
      writes_visible_to_products();
      __syncwarp();
      if (threadIdx.x % 32 == 0) {
        barrier_arrive(rings.full + at.stage);
        if (L::kConverts) barrier_arrive(rings.taken + landing.stage);
      }
    }
  }
}

// A thread's part of its warpgroup's rows: operand A of warpgroup products, 16 columns a step.
template <class L>
struct Queries {
  std::uint32_t pairs[L::kHalves * 4][4];
};
__device__ inline float2 two_of(std::uint32_t pair) {
  return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pair));
}

// A row's queries that are still to be turned, rounded to bf16 then. All loads are on their way at once.
template <class L>
__device__ inline void load_turned(const float2* angles, const bf16* from, bool is_there, int half,
                                   Queries<L>& queries) {
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
__device__ void load_queries(const AttentionTask& task, const Work& work, int group, Queries<L>& queries) {
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

template <class L>
__device__ inline void pack_weights(const float (&scores)[32], std::uint32_t (&weights)[16]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) weights[i] = operand_pair<L>(scores[2 * i], scores[2 * i + 1]);
}

// Attention of a warpgroup's rows over tiles [first, end), the first of which is at `at` in the ring. Leaves
// sums that are not yet divided by l.
template <class L>
__device__ void attend(const AttentionTask& task, const Work& work, const Rows& rows, Queries<L>& queries,
                       const char* ring, Rings<L>& rings, RingPlace& at, int first, int end,
                       float (&sums)[L::kHalves][32], float (&m)[2], float (&l)[2]) {
  float scores[32], keep[2];
  std::uint32_t weights[16] = {};
  const auto multiply_keys = [&](int stage) {
    const std::uint32_t k = tile_descriptor(ring + stage * 2 * L::kTileBytes);
#pragma unroll
    for (int step = 0; step < L::kHalves * 4; ++step)
      Product<L, false>::add(scores, queries.pairs[step], k + step / 4 * (L::kHalfBytes >> 4) + step % 4 * 2,
                             step > 0);
    products_commit();
  };
  const auto multiply_values = [&](int stage, bool adds) {
    const char* values = ring + stage * 2 * L::kTileBytes + L::kTileBytes;
#pragma unroll
    for (int half = 0; half < L::kHalves; ++half) {
      const std::uint32_t v = transposed_tile_descriptor(values + half * L::kHalfBytes);
#pragma unroll
      for (int step = 0; step < 4; ++step)
        Product<L, true>::add(sums[half], weights + 4 * step, v + step * (2048 >> 4), adds || step > 0);
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
  const bool signals = threadIdx.x % 128 == 0;

  barrier_wait(rings.full + at.stage, at.parity);
  products_begin();
  multiply_keys(at.stage);
  products_wait<0>();
  hold(scores);
  if (rows.any) {
    weigh(scores, task, rows, first, hides(first), m, l, keep);
    pack_weights<L>(scores, weights);
  }
  for (int tile = first + 1; tile < end; ++tile) {
    const int before = at.stage;
    at.advance(L::kStages);
    barrier_wait(rings.full + at.stage, at.parity);
    hold(weights);
    hold(scores);
    hold_sums();
    products_begin();
    multiply_keys(at.stage);
    multiply_values(before, tile > first + 1);
    products_wait<1>();
    hold(scores);
    if (rows.any) weigh(scores, task, rows, tile, hides(tile), m, l, keep);
    products_wait<0>();
    hold_sums();
    hold(weights);
    if (signals) barrier_arrive(rings.empty + before);
    if (rows.any) {
      // Maxima seldom move after the first tiles.
      if (__any_sync(~0u, keep[0] != 1 || keep[1] != 1)) {
#pragma unroll
        for (int half = 0; half < L::kHalves; ++half)
#pragma unroll
          for (int i = 0; i < 32; ++i) sums[half][i] *= keep[i / 2 % 2];
      }
      pack_weights<L>(scores, weights);
    }
  }
  hold(weights);
  hold_sums();
  products_begin();
  multiply_values(at.stage, end > first + 1);
  products_wait<0>();
  hold_sums();
  if (signals) barrier_arrive(rings.empty + at.stage);
  at.advance(L::kStages);
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
      const Factors f = join_factors(largest, total, ends.x, ends.y);
      sum = {join_sums(sum.x, other.x, f), join_sums(sum.y, other.y, f)};
      largest = f.m;
      total = f.l;
    }
    const float inverse = task.cache.value_scale / total;
    store_two(task.out, out_index(task, work, row) + column, sum.x * inverse, sum.y * inverse);
  }
}

// A warpgroup takes the block's works.
template <class L, class T>
__device__ void consume(const AttentionTask& task, Rings<L>& rings, const char* ring, float* joined) {
  const int lane = threadIdx.x % 32, group = threadIdx.x / 128;
  const int warp_row = group * kGroupRows + threadIdx.x / 32 % 4 * 16;
  [[maybe_unused]] float* mine = joined + group * L::kJoinedFloats + threadIdx.x % 128;
  RingPlace works_at, at;
  Queries<L> queries;
  Work next = next_work(rings, works_at);
  if (next.span.count > 0) load_queries<L, T>(task, next, group, queries);
  while (next.span.count > 0) {
    const Work work = next;
    const int all_rows = work.span.count * task.heads;
    Rows rows;
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
      attend<L>(task, work, rows, queries, ring, rings, at, tile, end, sums, m, l);
      [[maybe_unused]] const bool is_first = tile == work.first_tile, is_last = end > work.last_tile;
      tile = end;
      if constexpr (!L::kDividesContext) {
        if (is_first && is_last) break;
        Factors f[2];
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
    next = next_work(rings, works_at);
    if (next.span.count > 0) load_queries<L, T>(task, next, group, queries);
    if constexpr (L::kDividesContext) {
      if (work.parts > 1) {
        join_blocks<L>(task, work, sums, m, l);
        continue;
      }
    }
    write_rows<L>(task, work, group, sums, l);
  }
}

template <int kGroups, int kDim, class T, class C>
__global__ void __launch_bounds__(Layout<kGroups, kDim, C>::kThreads, Layout<kGroups, kDim, C>::kBlocks)
    tile_attention_kernel(const __grid_constant__ AttentionTask task) {
  using L = Layout<kGroups, kDim, C>;
  extern __shared__ char memory[];
  __shared__ Rings<L> rings;
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
      Producer<L>(task, landings, rings).run();
    else if (warp <= L::kFinishers)
      finish<L, C>(task, rings, ring, landings, warp - 1);
    wait_for_earlier_kernels();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(L::kConsumerRegisters));
    wait_for_earlier_kernels();
    consume<L, T>(task, rings, ring, joined);
  }
}

template <int kGroups, int kDim, class T, class C>
void start(const AttentionTask& task, cudaStream_t stream) {
  using L = Layout<kGroups, kDim, C>;
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
  return static_cast<int>((step.longest_context + kSplit - 1) / kSplit);
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
  return step.longest_query == 1 && supports_tile_attention(num_heads, step, cache);
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
    constexpr int kRows = Layout<2, kDim, C>::kRows;
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
