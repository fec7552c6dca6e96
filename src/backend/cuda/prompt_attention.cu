// Attention of prompts (Dao 2022; Shah et al. 2024): two warpgroups hold 64 rows each, a row being one query
// of one of the heads that share a KV head, and take tiles of 128 keys, each weighing a tile while the values
// of the tile before it are multiplied. One work follows another without a pause: the first scores of the
// next are computed beside the last values of this one, whose rows are written beside the products after
// those.
//
// Four more warps: one takes works from a counter that all blocks share, longest first in a prompt; two bring
// queries and keys, and values, into rings of shared memory by the copy engine; one makes rows of values that
// no query sees zeros: unwritten memory may hold anything, and zero weights would not hide it.
//
// Its sums are not those of tile_attention.cu, which cuts contexts at fixed positions: it takes the steps
// whose linear layers depend on the number of rows as well.
#include <algorithm>

#include "backend/cuda/attention_product.cuh"
#include "backend/cuda/attention_task.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {
namespace {

constexpr int kKeys = 128;  // of a tile
constexpr int kConsumers = 256, kThreads = kConsumers + 128;
constexpr int kConsumerRegisters = 232, kProducerRegisters = 40;
// Weights may be 2^8 larger than with the largest score as their base before sums are scaled anew.
constexpr float kSlack = 8;
// A tile's values are given back when those of the next are multiplied, its keys before it is weighed.
constexpr int kWorks = 2, kKeyTiles = 2, kValueTiles = 3;

template <int kDim>
struct Layout {
  static constexpr int kHalves = kDim / 64;       // of 128 bytes, as wide as a swizzled row
  static constexpr int kHalfBytes = kKeys * 128;  // of a tile of keys, values or queries
  static constexpr int kTileBytes = kHalves * kHalfBytes;
  static constexpr int kBytes = (kWorks + kKeyTiles + kValueTiles) * kTileBytes + 1024;
};
static_assert(kPromptRows == kKeys);

// What a block computes: queries of one KV head, over tiles [first_tile, last_tile] of keys. Without queries
// when no work is left.
struct Work {
  Span span;
  int kv_head, first_position, last_position;
  int visible;  // the first key that any row sees
  int first_tile, last_tile;
};

template <int kStages>
struct Ring {
  std::uint64_t full[kStages], empty[kStages];
};
struct Rings {
  Ring<kWorks> works, queries;
  Ring<kKeyTiles> keys;
  Ring<kValueTiles> values;
  std::uint64_t landed_values[kValueTiles];  // full once rows that are not seen are zeros
  Work work[kWorks];
};
template <int kDim>
struct Tiles {
  char* first;
  __device__ char* queries(int stage) const { return first + stage * Layout<kDim>::kTileBytes; }
  __device__ char* keys(int stage) const { return queries(kWorks + stage); }
  __device__ char* values(int stage) const { return keys(kKeyTiles + stage); }
};

// One warp finds works: the block's first and then those that no block has taken, until none is left.
__device__ inline void find_works(const AttentionTask& task, Rings& rings) {
  const int kv_heads = static_cast<int>(task.cache.num_kv_heads), tokens = kPromptRows / task.heads;
  const int spans = count_spans(task, tokens), works = spans * kv_heads, blocks = static_cast<int>(gridDim.x);
  const bool signals = threadIdx.x % 32 == 0;
  RingPlace at;
  const auto publish = [&](int index) {
    Work work = {};
    if (index < works) {
      // The last queries of a prompt, which see the most keys, come first.
      work.span = find_span(task, spans - 1 - index / kv_heads, tokens);
      work.kv_head = index % kv_heads;
      work.first_position = task.step.positions[work.span.first];
      work.last_position = work.first_position + work.span.count - 1;
      work.visible = task.sliding_window > 0 ? max(0, work.first_position - task.sliding_window + 1) : 0;
      work.first_tile = work.visible / kKeys;
      work.last_tile = work.last_position / kKeys;
    }
    barrier_wait(rings.works.empty + at.stage, at.parity ^ 1);  // at first of a phase before the first
    if (signals) {
      rings.work[at.stage] = work;
      barrier_arrive(rings.works.full + at.stage);
    }
    __syncwarp();
    at.advance(kWorks);
  };
  // Each block asks once for each work it has; the last to ask leaves the counter as it was.
  const auto ask = [&] {
    int next = 0;
    if (signals) next = atomicAdd(task.next_work, 1);
    if (signals && next == works - 1) *task.next_work = 0;
    return next + blocks;
  };
  int index = static_cast<int>(blockIdx.x);
  publish(index);
  if (index < works && works > blocks) {
    wait_for_earlier_kernels();
    for (index = __shfl_sync(~0u, ask(), 0); index < works;) {
      const int next = ask();
      publish(index);
      index = __shfl_sync(~0u, next, 0);
    }
  }
  if (static_cast<int>(blockIdx.x) < works) publish(works);
}

// The block's next work, for all lanes of a warp.
__device__ inline Work next_work(Rings& rings, const RingPlace& at) {
  barrier_wait(rings.works.full + at.stage, at.parity);
  const Work work = rings.work[at.stage];
  __syncwarp();
  if (threadIdx.x % 32 == 0) barrier_arrive(rings.works.empty + at.stage);
  return work;
}

// A warp's lanes have one box each of a tile's keys or values: 64 columns of a block's rows.
template <int kDim>
class Boxes {
 public:
  __device__ Boxes(const AttentionTask& task, const Work& work, const CUtensorMap& map)
      : work_(work),
        map_(map),
        blocks_(task.step.block_table +
                (work.span.sequence * task.step.groups + task.group) * task.step.blocks_per_sequence),
        shift_(task.block_shift),
        rows_(min(1 << shift_, kKeys / 2)),
        row_(lane() / L::kHalves * rows_) {
    find(work.first_tile);
  }

  // Asks for the boxes of `tile` that a row sees, those of tiles one after another.
  __device__ void fetch(int tile, char* to, std::uint64_t* full) {
    const int key = tile * kKeys + row_, half = lane() % L::kHalves, slot = slot_;
    find(tile + 1);
    const bool is_seen = row_ < kKeys && key + rows_ > work_.visible && key <= work_.last_position;
    const int boxes = __popc(__ballot_sync(~0u, is_seen));
    if (lane() == 0) barrier_expect_bytes(full, boxes * rows_ * 128);
    __syncwarp();
    if (is_seen)
      copy_tile(to + half * L::kHalfBytes + row_ * 128, &map_, work_.kv_head * kDim + half * 64, slot, full,
                read_often_policy());
    __syncwarp();
  }

 private:
  using L = Layout<kDim>;
  static __device__ int lane() { return threadIdx.x % 32; }
  // Looked up one tile ahead.
  __device__ void find(int tile) {
    const int key = min(max(tile * kKeys + row_, work_.visible), work_.last_position);
    slot_ = (blocks_[key >> shift_] << shift_) + (key & ((1 << shift_) - 1)) / rows_ * rows_;
  }

  const Work& work_;
  const CUtensorMap& map_;
  const std::int32_t* blocks_;
  int shift_, rows_, row_;
  int slot_;  // of the cache, where the lane's next box begins
};

// Where 16 bytes of row `row` and column chunk `chunk` of 8 values stand in a tile.
__device__ inline int swizzled(int row, int chunk) {
  return chunk / 8 * kKeys * 128 + row * 128 + ((chunk % 8 ^ row % 8) << 4);
}

// One warp.
template <int kDim>
__device__ void produce_keys(const AttentionTask& task, Tiles<kDim> tiles, Rings& rings) {
  RingPlace at, key_at;  // of works and their queries; of keys
  for (;; at.advance(kWorks)) {
    const Work work = next_work(rings, at);
    if (work.span.count == 0) return;
    Boxes<kDim> boxes(task, work, task.key_tiles);
    barrier_wait(rings.queries.empty + at.stage, at.parity ^ 1);
    wait_for_earlier_kernels();
    if (threadIdx.x % 32 == 0) {
      std::uint64_t* full = rings.queries.full + at.stage;
      barrier_expect_bytes(full, kPromptRows / task.heads * task.heads * kDim * 2);
      for (int half = 0; half < Layout<kDim>::kHalves; ++half)
        copy_tile_of_heads(tiles.queries(at.stage) + half * Layout<kDim>::kHalfBytes, &task.query_tiles,
                           half * 64, work.kv_head * task.heads, work.span.first, full, read_once_policy());
    }
    __syncwarp();
    for (int tile = work.first_tile; tile <= work.last_tile; ++tile, key_at.advance(kKeyTiles)) {
      barrier_wait(rings.keys.empty + key_at.stage, key_at.parity ^ 1);
      boxes.fetch(tile, tiles.keys(key_at.stage), rings.keys.full + key_at.stage);
    }
  }
}

// One warp.
template <int kDim>
__device__ void produce_values(const AttentionTask& task, Tiles<kDim> tiles, Rings& rings) {
  RingPlace at, value_at;
  for (;; at.advance(kWorks)) {
    const Work work = next_work(rings, at);
    if (work.span.count == 0) return;
    Boxes<kDim> boxes(task, work, task.value_tiles);
    wait_for_earlier_kernels();
    for (int tile = work.first_tile; tile <= work.last_tile; ++tile, value_at.advance(kValueTiles)) {
      barrier_wait(rings.values.empty + value_at.stage, value_at.parity ^ 1);
      boxes.fetch(tile, tiles.values(value_at.stage), rings.landed_values + value_at.stage);
    }
  }
}

// One warp.
template <int kDim>
__device__ void clear_values(Tiles<kDim> tiles, Rings& rings) {
  constexpr int kChunks = kDim / 8;
  const int lane = threadIdx.x % 32;
  RingPlace at, value_at;
  for (;; at.advance(kWorks)) {
    const Work work = next_work(rings, at);
    if (work.span.count == 0) return;
    for (int tile = work.first_tile; tile <= work.last_tile; ++tile, value_at.advance(kValueTiles)) {
      barrier_wait(rings.landed_values + value_at.stage, value_at.parity);
      const auto clear = [&](int row, int end) {
        for (row += lane / kChunks; row < end; row += 32 / kChunks)
          *reinterpret_cast<uint4*>(tiles.values(value_at.stage) + swizzled(row, lane % kChunks)) = {0, 0, 0,
                                                                                                     0};
      };
      const int begin = work.visible - tile * kKeys, end = work.last_position + 1 - tile * kKeys;
      if (begin > 0 || end < kKeys) {
        clear(0, begin);
        clear(end, kKeys);
        writes_visible_to_products();
        __syncwarp();
      }
      if (lane == 0) barrier_arrive(rings.values.full + value_at.stage);
    }
  }
}

// The rows of a thread, `lane / 4` of its warp's 16 and 8 further down.
struct Weighing {
  int position[2];  // the last key each sees
  float m[2] = {-INFINITY, -INFINITY}, l[2] = {0, 0}, keep[2];
};

// Scores to weights of base 2; `keep` gets what earlier sums are multiplied with.
__device__ inline void weigh(float (&scores)[kKeys / 2], const AttentionTask& task, int first_key,
                             bool hides_later, bool hides_earlier, Weighing& rows) {
  const int lane_key = first_key + threadIdx.x % 4 * 2;
  const auto key_of = [&](int i) { return lane_key + i / 4 * 8 + i % 2; };
  if (hides_later) {
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i)
      if (key_of(i) > rows.position[i / 2 % 2]) scores[i] = -INFINITY;
  }
  if (hides_earlier) {
#pragma unroll
    for (int i = 0; i < kKeys / 2; ++i)
      if (key_of(i) <= rows.position[i / 2 % 2] - task.sliding_window) scores[i] = -INFINITY;
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

// A thread's part of rows that are computed, in bf16: columns 8 i + 2 (lane % 4) of its first row, then of
// its second.
template <int kDim>
struct Output {
  Span span;
  int kv_head;
  std::uint32_t pairs[2][kDim / 8];
};

template <int kDim>
__device__ inline void divide(const float (&sums)[kDim / 2], const float (&l)[2], Output<kDim>& out) {
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
__device__ inline void write_rows(const AttentionTask& task, const Output<kDim>& rows) {
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

// Two warpgroups.
template <int kDim>
__device__ void consume(const AttentionTask& task, Tiles<kDim> tiles, Rings& rings) {
  using L = Layout<kDim>;
  const int group = threadIdx.x / 128;
  const bool signals = threadIdx.x % 128 == 0;
  float scores[kKeys / 2], sums[kDim / 2] = {};
  std::uint32_t weights[kKeys / 4] = {};
  const auto multiply_keys = [&](const char* queries, const char* keys) {
    const std::uint32_t q = tile_descriptor(queries) + group * (64 * 128 >> 4), k = tile_descriptor(keys);
#pragma unroll
    for (int step = 0; step < kDim / 16; ++step) {
      const int at = step / 4 * (L::kHalfBytes >> 4) + step % 4 * 2;
      WarpgroupProduct<Operand::kBf16, kKeys>::add(scores, q + at, k + at, step > 0);
    }
    products_commit();
  };
  const auto multiply_values = [&](const char* values) {
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
      const std::uint32_t* rows = weights + 4 * step;
      if constexpr (kDim == 128)
        add_product_of_128(sums, rows, transposed_halves_descriptor(values + step * 2048, L::kHalfBytes));
      else
        RegisterProduct<kDim, true>::add(sums, rows, transposed_tile_descriptor(values + step * 2048), 1);
    }
    products_commit();
  };

  wait_for_earlier_kernels();
  Output<kDim> out = {};
  Span span = {};  // of the rows whose sums are computed
  int kv_head = 0;
  float l[2] = {1, 1};
  bool has_before = false, has_output = false;
  RingPlace at, key_at, value_at, value_before;  // value_before: of the tile whose values are multiplied next
  for (;; at.advance(kWorks)) {
    const Work work = next_work(rings, at);
    if (work.span.count == 0) break;
    Weighing rows;
    const int row = threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4, last = work.span.count - 1;
#pragma unroll
    for (int half = 0; half < 2; ++half)
      rows.position[half] = work.first_position + min((row + half * 8) / task.heads, last);
    barrier_wait(rings.queries.full + at.stage, at.parity);
    const char* queries = tiles.queries(at.stage);
    for (int tile = work.first_tile; tile <= work.last_tile; ++tile) {
      barrier_wait(rings.keys.full + key_at.stage, key_at.parity);
      hold(weights);
      hold(scores);
      hold(sums);
      products_begin();
      multiply_keys(queries, tiles.keys(key_at.stage));
      // Before there are values, any numbers do: their sums are not looked at.
      multiply_values(has_before ? tiles.values(value_before.stage) : queries);
      if (has_output) write_rows<kDim>(task, out);
      has_output = false;
      products_wait<1>();
      hold(scores);
      if (signals) {
        barrier_arrive(rings.keys.empty + key_at.stage);
        if (tile == work.last_tile) barrier_arrive(rings.queries.empty + at.stage);
      }
      const bool hides_later = (tile + 1) * kKeys - 1 > work.first_position;
      const bool hides_earlier =
          task.sliding_window > 0 && tile * kKeys <= work.last_position - task.sliding_window;
      weigh(scores, task, tile * kKeys, hides_later, hides_earlier, rows);
      // Without this wait between them the assembler moves the next one before the weighing.
      barrier_wait(rings.values.full + value_at.stage, value_at.parity);
      products_wait<0>();
      hold(sums);
      hold(weights);
      if (signals && has_before) barrier_arrive(rings.values.empty + value_before.stage);
      if (tile == work.first_tile) {
        out.span = span;
        out.kv_head = kv_head;
        divide<kDim>(sums, l, out);
        has_output = has_before;
#pragma unroll
        for (float& sum : sums) sum = 0;
      } else if (__any_sync(~0u, rows.keep[0] != 1 || rows.keep[1] != 1)) {
#pragma unroll
        for (int i = 0; i < kDim / 2; ++i) sums[i] *= rows.keep[i / 2 % 2];
      }
#pragma unroll
      for (int i = 0; i < kKeys / 4; ++i) weights[i] = pair_of(scores[2 * i], scores[2 * i + 1]);
      value_before = value_at;
      has_before = true;
      key_at.advance(kKeyTiles);
      value_at.advance(kValueTiles);
    }
    span = work.span;
    kv_head = work.kv_head;
    l[0] = rows.l[0];
    l[1] = rows.l[1];
  }
  if (!has_before) return;
  hold(weights);
  hold(sums);
  products_begin();
  multiply_values(tiles.values(value_before.stage));
  if (has_output) write_rows<kDim>(task, out);
  products_wait<0>();
  hold(sums);
  out.span = span;
  out.kv_head = kv_head;
  divide<kDim>(sums, l, out);
  write_rows<kDim>(task, out);
}

template <int kDim>
__global__ void __launch_bounds__(kThreads, 1)
    prompt_attention_kernel(const __grid_constant__ AttentionTask task) {
  extern __shared__ char memory[];
  __shared__ Rings rings;
  const Tiles<kDim> tiles = {memory + (1024 - shared_address(memory) % 1024) % 1024};
  const int warp = threadIdx.x / 32;
  let_next_kernel_begin();
  if (threadIdx.x == 0) {
    const auto init = [](auto& ring, int takers) {
      for (std::uint64_t& barrier : ring.full) barrier_init(&barrier, 1);
      for (std::uint64_t& barrier : ring.empty) barrier_init(&barrier, takers);
    };
    init(rings.works, kConsumers / 32 + 3);
    init(rings.queries, 2);
    init(rings.keys, 2);
    init(rings.values, 2);
    for (std::uint64_t& barrier : rings.landed_values) barrier_init(&barrier, 1);
    barrier_init_visible();
  }
  __syncthreads();
  // The step's numbers were there before its first kernel; all else waits for the kernels before this one.
  if (warp >= kConsumers / 32) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    switch (warp - kConsumers / 32) {
      case 0: produce_keys<kDim>(task, tiles, rings); break;
      case 1: produce_values<kDim>(task, tiles, rings); break;
      case 2: clear_values<kDim>(tiles, rings); break;
      default: find_works(task, rings);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    consume<kDim>(task, tiles, rings);
  }
}

template <int kDim>
void start(const AttentionTask& task, cudaStream_t stream) {
  const auto kernel = prompt_attention_kernel<kDim>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Layout<kDim>::kBytes);
  (void)allowed;  // the launch fails if this did
  launch(kernel, std::min(static_cast<unsigned>(task.works), multiprocessors()), kThreads,
         Layout<kDim>::kBytes, stream, task);
}

}  // namespace

void prompt_attention(const AttentionTask& task, cudaStream_t stream) {
  if (task.cache.head_dim == 64)
    start<64>(task, stream);
  else
    start<128>(task, stream);
}

}  // namespace bise::cuda
