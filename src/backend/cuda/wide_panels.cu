// A block multiplies a tile of two or three times 64 weight rows with up to 128 input rows; a warpgroup
// expands its 64 weight rows in registers, scales them and rounds them to bf16.
//
// - Where there are fewer tiles than multiprocessors, blocks divide the columns (`splits`). They leave their
//   sums in the workspace, wait for the others', and add a share of them each, in the order of the columns.
// - Where gate and up are joined, two blocks form a cluster, whose warpgroups count gate, up, gate, up ...;
//   each of two hands the other half of its sums through shared memory. The blocks have the same inputs, and
//   each fetches half of them for both.
//
// Which cut a product gets follows from an estimate of its time (cut_of).
#include "backend/cuda/wide_panels.h"

#include <algorithm>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/panel_codes.cuh"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {
namespace {

constexpr int kMostGroups = 3, kMostStages = 8, kMostSplits = 8;
constexpr int kSharedBytes = 227 * 1024 - 2048;  // beside static memory and the alignment

// Work is dealt to clusters: a tile of the weight of all their blocks and a tile of the input.
struct WideTask {
  CUtensorMap input_tiles;  // of half an input tile's rows
  Int4Panels panels;
  int rows;              // of the input and the output
  int half_rows;         // columns of the output; of the weight, half of its rows where gated
  int half_blocks;       // the same in blocks of 64
  int chunks;            // of 128 columns
  int row_tiles, tiles;  // of the input, and of all
  int splits;            // of the columns; all their blocks run at once
  int sharing;           // blocks of a cluster: 2 where gated, else 1
  int gated;
  int stages, stage_bytes;
  const float *weight_scales, *bias;
  Values out;
  std::int64_t out_stride;
  float* partial;  // [blocks][groups][sums of a thread / 4][128 threads][4]
  int* arrivals;   // [tiles][sharing][groups][2]: warpgroups whose sums are there, and that have joined them
};

// kGroups warpgroups multiply; one more feeds them. A stage of the ring has 128 columns: two boxes of 64
// columns of the inputs, then the warpgroups' panels.
template <int kN_, int kGroups_>
struct WideLayout {
  static constexpr int kN = kN_, kGroups = kGroups_;
  static constexpr int kConsumers = kGroups * 128, kThreads = kConsumers + 128;
  static constexpr int kSums = kN / 2;  // of a thread
  static constexpr int kBoxBytes = kN * 128, kInputBytes = 2 * kBoxBytes;
  // Of a multiprocessor's 65536 registers.
  static constexpr int kConsumerRegisters = kGroups == 3 ? 160 : 232;
  static constexpr int kProducerRegisters = kGroups == 3 ? 32 : 40;
  // Gated: the sums that a warpgroup gets from another.
  static constexpr int kPartBytes = kSums / 2 * 128 * 4;
};

struct WideBarriers {
  std::uint64_t full[kMostStages], empty[kMostStages];
  // Gated, of a warpgroup: the other's sums are there; the other has read what it got.
  std::uint64_t parts[kMostGroups], taken[kMostGroups];
};

// A block's place in the work.
struct Place {
  int share;              // of the cluster's blocks
  int cluster, clusters;  // counting tiles and, in them, splits
  int split;
  int first_chunk, count;  // of the columns

  __device__ explicit Place(const WideTask& task) {
    share = cluster_rank();
    cluster = static_cast<int>(blockIdx.x) / task.sharing;
    clusters = static_cast<int>(gridDim.x) / task.sharing;
    split = cluster % task.splits;
    first_chunk = task.chunks * split / task.splits;
    count = task.chunks * (split + 1) / task.splits - first_chunk;
  }
  __device__ int tile(int round, const WideTask& task) const {
    return (cluster + round * clusters) / task.splits;
  }
  __device__ int rounds(const WideTask& task) const {
    return (task.tiles * task.splits - cluster + clusters - 1) / clusters;
  }
};

// What a warpgroup's 64 rows are: the block of 64 within the half, and the half. Blocks from half_blocks on
// are not there.
struct Rows {
  int block, half;
};
template <class L>
__device__ inline Rows rows_of(int tile, int share, int group, const WideTask& task) {
  const int index = (tile / task.row_tiles * task.sharing + share) * L::kGroups + group;
  if (task.gated) return {index / 2, index % 2};
  return {index, 0};
}

// The panels of a block's warpgroups, chunk after chunk.
template <class L>
struct PanelWalk {
  const char* from[L::kGroups];  // null: not there
  std::uint32_t bytes;           // of all

  __device__ PanelWalk(const WideTask& task, const Place& own, int tile) : bytes(0) {
#pragma unroll
    for (int group = 0; group < L::kGroups; ++group) {
      const Rows rows = rows_of<L>(tile, own.share, group, task);
      const bool is_there = rows.block < task.half_blocks;
      const std::int64_t block = rows.half * task.half_blocks + rows.block;
      from[group] = is_there ? static_cast<const char*>(task.panels.data) +
                                   (block * task.chunks + own.first_chunk) * task.panels.block_bytes
                             : nullptr;
      bytes += is_there ? task.panels.block_bytes : 0;
    }
  }
  // Into a stage, whose inputs it announces too.
  __device__ void fetch(const WideTask& task, char* stage, std::uint64_t* full, std::uint64_t policy) {
    const auto block_bytes = static_cast<std::uint32_t>(task.panels.block_bytes);
    barrier_expect_bytes(full, L::kInputBytes + bytes);
#pragma unroll
    for (int group = 0; group < L::kGroups; ++group) {
      if (!from[group]) continue;
      copy_bytes(stage + L::kInputBytes + group * block_bytes, from[group], block_bytes, full, policy);
      from[group] += block_bytes;
    }
  }
};

// The input rows from `row`, 128 columns from `column`; of a pair's block its half of the rows, for both.
template <class L>
__device__ inline void fetch_inputs(const WideTask& task, const Place& own, int column, int row, char* stage,
                                    std::uint64_t* full, std::uint64_t policy) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int half = i % 2;
    char* to = stage + i / 2 * L::kBoxBytes + half * (L::kBoxBytes / 2);
    if (task.sharing == 1)
      copy_tile(to, &task.input_tiles, column + i / 2 * 64, row + half * (L::kN / 2), full, policy);
    else if (half == own.share)
      copy_tile_to(3, to, &task.input_tiles, column + i / 2 * 64, row + half * (L::kN / 2), full, policy);
  }
}

// One thread; its time for a chunk must stay below the tensor cores'. Weights for the empty ring are fetched
// while earlier kernels, which make the inputs, still run.
template <class L>
__device__ void feed(const WideTask& task, const Place& own, char* ring, WideBarriers& barriers) {
  prefetch_map(&task.input_tiles);
  const std::uint64_t often = read_often_policy();
  const std::uint64_t weight_policy = task.row_tiles == 1 ? read_once_policy() : often;
  const int rounds = own.rounds(task), ahead = min(task.stages, own.count);
  RingPlace place;
  for (int round = 0; round < rounds; ++round) {
    const int tile = own.tile(round, task), row = tile % task.row_tiles * L::kN;
    PanelWalk<L> panels(task, own, tile);
    int fetched = 0;
    if (round == 0) {
      for (; fetched < ahead; ++fetched)
        panels.fetch(task, ring + fetched * task.stage_bytes, barriers.full + fetched, weight_policy);
      wait_for_earlier_kernels();
    }
    for (int chunk = 0; chunk < own.count; ++chunk, place.advance(task.stages)) {
      char* stage = ring + place.stage * task.stage_bytes;
      std::uint64_t* full = barriers.full + place.stage;
      // At once where the stage is used for the first time.
      barrier_wait(barriers.empty + place.stage, place.parity ^ 1);
      if (chunk >= fetched) panels.fetch(task, stage, full, weight_policy);
      fetch_inputs<L>(task, own, (own.first_chunk + chunk) * 128, row, stage, full, often);
    }
  }
}

// Adds the products of the block's columns. Products follow one another without a wait for their sums.
template <class L>
__device__ void add_chunks(const WideTask& task, const Place& own, const char* ring, WideBarriers& barriers,
                           RingPlace& place, float (&sums)[L::kSums]) {
  constexpr int kPending = 3;
  const Int4Panels& panels = task.panels;
  const int thread = static_cast<int>(threadIdx.x) % 128, group = static_cast<int>(threadIdx.x) / 128;
  const int row = thread / 32 * 16 + thread % 32 / 4;
  // One thread for the warpgroup, once products of the stage are complete: a product is the warpgroup's and
  // complete when all its warps have given their operands, into which went what they read of the stage.
  // Arrivals at the other block's barrier make no writes visible there (.release.cluster: a fence of the
  // whole GPU); it reads none of this thread's.
  //
  // One branch and no other: with a second one for blocks without a partner the compiler waits for each
  // product before it makes the operands of the next (ptxas warns of it, C7513).
  const bool arrives = thread < task.sharing;
  const auto release = [&](int stage) {
    if (arrives) barrier_arrive_in(barriers.empty + stage, thread);
  };
  std::uint32_t pairs[kPending + 1][4] = {};
  int before = -1;  // the stage whose products may still be under way
  for (int left = own.count; left > 0; --left, place.advance(task.stages)) {
    barrier_wait(barriers.full + place.stage, place.parity);
    const char* inputs = ring + place.stage * task.stage_bytes;
    const char* block = inputs + L::kInputBytes + group * panels.block_bytes;
    const uint4 raw[2] = {*reinterpret_cast<const uint4*>(block + thread * 16),
                          *reinterpret_cast<const uint4*>(block + 2048 + thread * 16)};
    const auto* words = reinterpret_cast<const std::uint32_t*>(raw);
    std::uint32_t zeros[2] = {0x43084308, 0x43084308};   // 136, see expand_codes()
    std::uint32_t scales[2] = {0x3f803f80, 0x3f803f80};  // 1
#pragma unroll
    for (int high = 0; high < 2; ++high) {
      const int index = row + high * 8;
      if (panels.has_zeros)
        zeros[high] += static_cast<std::uint32_t>(
                           reinterpret_cast<const std::int8_t*>(block + panels.zero_offset)[index]) *
                       0x10001u;
      if (panels.scale == PanelScale::kBf16)
        scales[high] = reinterpret_cast<const std::uint16_t*>(block + kPanelCodeBytes)[index] * 0x10001u;
    }
#pragma unroll
    for (int step = 0; step < 8; ++step) {
      auto& now = pairs[step % (kPending + 1)];
      products_wait<kPending>();
      hold(now);
      // Those of the chunk before are complete.
      if (step == kPending && before >= 0) release(before);
      expand_codes(words[step], zeros[0], zeros[1], now);
#pragma unroll
      for (int k = 0; k < 4; ++k) asm("mul.rn.bf16x2 %0, %0, %1;" : "+r"(now[k]) : "r"(scales[k % 2]));
      hold(now);
      products_begin();
      RegisterProduct<L::kN, false>::add(sums, now,
                                         tile_descriptor(inputs + step / 4 * L::kBoxBytes) + step % 4 * 2, 1);
      products_commit();
    }
    before = place.stage;
  }
  products_wait<0>();
#pragma unroll
  for (int i = 0; i <= kPending; ++i) hold(pairs[i]);
  hold(sums);
  release(before);
}

// The 8 x 8 values of a warp, two of a row in each lane: the same of a column.
__device__ inline std::uint32_t transposed(float first, float second) {
  std::uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(pair));
  return pair;
}

// Stores a thread's sums i to i + 3 of a tile: of two weight rows, 8 apart, and two input rows.
__device__ inline void store_four(const WideTask& task, int first_column, int row, const float (&values)[4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32 % 4;
  if (task.out.type == Float::kBf16) {
    const std::uint32_t pairs[2] = {transposed(values[0], values[1]), transposed(values[2], values[3])};
    const int own_row = row + lane / 4;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int column = first_column + warp * 16 + k * 8 + lane % 4 * 2;
      if (own_row < task.rows && column < task.half_rows)
        *reinterpret_cast<std::uint32_t*>(static_cast<bf16*>(task.out.data) + own_row * task.out_stride +
                                          column) = pairs[k];
    }
  } else {
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const int column = first_column + warp * 16 + k / 2 * 8 + lane / 4,
                own_row = row + lane % 4 * 2 + k % 2;
      if (own_row < task.rows && column < task.half_rows)
        static_cast<float*>(task.out.data)[own_row * task.out_stride + column] = values[k];
    }
  }
}

// Of a thread's two rows of the weight's half.
struct RowFactors {
  float scale[2] = {1, 1}, bias[2] = {};

  // Of four sums as store_four() has them.
  __device__ float of(float sum, int i) const { return sum * scale[i / 2] + bias[i / 2]; }
};
__device__ inline RowFactors row_factors(const WideTask& task, int half, int block) {
  const int thread = static_cast<int>(threadIdx.x) % 128;
  RowFactors factors;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const int column = min(block * 64 + thread / 32 * 16 + thread % 32 / 4 + k * 8, task.half_rows - 1);
    const int row = half * task.half_rows + column;
    if (task.weight_scales) factors.scale[k] = task.weight_scales[row];
    if (task.bias) factors.bias[k] = task.bias[row];
  }
  return factors;
}

// Hands half of this warpgroup's sums to the one that has gate's rows of its up's, or the reverse, and stores
// the other half, of which it has got those. parts: [groups][sums of a half / 4][128] float4.
template <class L>
__device__ void finish_gated(const WideTask& task, const Place& own, int tile, int round, char* parts,
                             WideBarriers& barriers, const float (&sums)[L::kSums]) {
  constexpr int kHalf = L::kSums / 2;
  const int thread = static_cast<int>(threadIdx.x) % 128, group = static_cast<int>(threadIdx.x) / 128;
  const Rows rows = rows_of<L>(tile, own.share, group, task);
  const int other = (own.share * L::kGroups + group) ^ 1, rank = other / L::kGroups;
  const int there = other % L::kGroups;
  const bool is_up = rows.half == 1;
  if (thread == 0) barrier_expect_bytes(barriers.parts + group, L::kPartBytes);
  if (round > 0) barrier_wait(barriers.taken + group, (round - 1) & 1);
  const std::uint32_t to = address_in(parts + there * L::kPartBytes + thread * 16, rank);
  const std::uint32_t barrier = address_in(barriers.parts + there, rank);
#pragma unroll
  for (int i = 0; i < kHalf; i += 4) {
    float values[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) values[k] = is_up ? sums[i + k] : sums[kHalf + i + k];
    store_in(to + i * 512, values, barrier);
  }
  const RowFactors gate_factors = row_factors(task, 0, rows.block),
                   up_factors = row_factors(task, 1, rows.block);
  const int first_row = tile % task.row_tiles * L::kN + (is_up ? L::kN / 2 : 0);
  barrier_wait(barriers.parts + group, round & 1);
#pragma unroll
  for (int i = 0; i < kHalf; i += 4) {
    const float4 part =
        *reinterpret_cast<const float4*>(parts + group * L::kPartBytes + thread * 16 + i * 512);
    const float others[4] = {part.x, part.y, part.z, part.w};
    float values[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float mine = is_up ? sums[kHalf + i + k] : sums[i + k];
      const float gate = gate_factors.of(is_up ? others[k] : mine, k),
                  up = up_factors.of(is_up ? mine : others[k], k);
      values[k] = gate / (1.f + expf(-gate)) * up;
    }
    store_four(task, rows.block * 64, first_row + i * 2, values);
  }
  sync_threads_of(1 + group, 128);
  if (thread == 0) barrier_arrive_in(barriers.taken + there, rank);
}

// Stores the sums of a tile whose columns are not divided.
template <class L>
__device__ void finish_whole(const WideTask& task, const Place& own, int tile,
                             const float (&sums)[L::kSums]) {
  const Rows rows = rows_of<L>(tile, own.share, static_cast<int>(threadIdx.x) / 128, task);
  const RowFactors factors = row_factors(task, 0, rows.block);
#pragma unroll
  for (int i = 0; i < L::kSums; i += 4) {
    float values[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) values[k] = factors.of(sums[i + k], k);
    store_four(task, rows.block * 64, tile % task.row_tiles * L::kN + i * 2, values);
  }
}

__device__ inline void wait_for(const int* arrivals, int count) {
  int arrived;
  do {
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(arrived) : "l"(arrivals) : "memory");
  } while (arrived < count);
}

// Leaves the sums for the warpgroups that have the same rows and other columns, and stores a share of all.
template <class L>
__device__ void finish_split(const WideTask& task, const Place& own, int tile,
                             const float (&sums)[L::kSums]) {
  constexpr int kFours = L::kSums / 4, kTogether = 4;
  const int thread = static_cast<int>(threadIdx.x) % 128, group = static_cast<int>(threadIdx.x) / 128;
  const Rows rows = rows_of<L>(tile, own.share, group, task);
  const auto part_of = [&](int split) {
    const int block = (tile * task.splits + split) * task.sharing + own.share;
    return reinterpret_cast<float4*>(task.partial) + (block * L::kGroups + group) * kFours * 128 + thread;
  };
  float4* mine = part_of(own.split);
#pragma unroll
  for (int i = 0; i < kFours; ++i)
    __stcg(mine + i * 128, make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]));
  int* arrivals = task.arrivals + 2 * ((tile * task.sharing + own.share) * L::kGroups + group);
  const RowFactors factors = row_factors(task, 0, rows.block);
  sync_threads_of(1 + group, 128);
  if (thread == 0) {
    __threadfence();
    atomicAdd(arrivals, 1);
    wait_for(arrivals, task.splits);
  }
  sync_threads_of(1 + group, 128);
  const int end = kFours * (own.split + 1) / task.splits;
  for (int first = kFours * own.split / task.splits; first < end; first += kTogether) {
    float totals[kTogether][4] = {};
#pragma unroll 4
    for (int split = 0; split < task.splits; ++split) {
      const float4* from = part_of(split);
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        const float4 part = __ldcg(from + min(first + i, kFours - 1) * 128);
        totals[i][0] += part.x, totals[i][1] += part.y, totals[i][2] += part.z, totals[i][3] += part.w;
      }
    }
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      if (first + i >= end) continue;
#pragma unroll
      for (int k = 0; k < 4; ++k) totals[i][k] = factors.of(totals[i][k], k);
      store_four(task, rows.block * 64, tile % task.row_tiles * L::kN + (first + i) * 8, totals[i]);
    }
  }
  if (thread == 0 && atomicAdd(arrivals + 1, 1) == task.splits - 1) arrivals[0] = arrivals[1] = 0;
}

template <class L>
__global__ void __launch_bounds__(L::kThreads, 1) wide_kernel(const __grid_constant__ WideTask task) {
  extern __shared__ char memory[];
  __shared__ WideBarriers barriers;
  char* ring = memory + (1024 - shared_address(memory) % 1024) % 1024;
  let_next_kernel_begin();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < task.stages; ++stage) {
      barrier_init(barriers.full + stage, 1);
      barrier_init(barriers.empty + stage, task.sharing * L::kGroups);
    }
    for (int group = 0; group < L::kGroups; ++group) {
      barrier_init(barriers.parts + group, 1);
      barrier_init(barriers.taken + group, 1);
    }
    barrier_init_visible();
  }
  __syncthreads();
  const Place own(task);
  if (task.sharing > 1) sync_cluster();

  if (threadIdx.x >= L::kConsumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(L::kProducerRegisters));
    if (threadIdx.x / 32 == L::kConsumers / 32 && elected()) feed<L>(task, own, ring, barriers);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(L::kConsumerRegisters));
    wait_for_earlier_kernels();
    RingPlace place;
    for (int round = 0; round < own.rounds(task); ++round) {
      const int tile = own.tile(round, task);
      float sums[L::kSums];
#pragma unroll
      for (int i = 0; i < L::kSums; ++i) sums[i] = 0;
      add_chunks<L>(task, own, ring, barriers, place, sums);
      if (task.gated)
        finish_gated<L>(task, own, tile, round, ring + task.stages * task.stage_bytes, barriers, sums);
      else if (task.splits > 1)
        finish_split<L>(task, own, tile, sums);
      else
        finish_whole<L>(task, own, tile, sums);
    }
  }
  // No block ends while the other may still write to it.
  __syncwarp();
  if (task.sharing > 1) sync_cluster();
}

// How a product is cut into blocks.
struct Cut {
  int groups, splits;
};

int input_rows(std::int64_t rows) {
  const std::int64_t tiles = (rows + 127) / 128, each = (rows + tiles - 1) / tiles;
  return static_cast<int>(std::max<std::int64_t>(64, (each + 31) / 32 * 32));
}

int cluster_tiles(const WideTask& task, const Cut& cut, int input_rows) {
  const int blocks = task.half_blocks * (task.gated ? 2 : 1), each = cut.groups * task.sharing;
  return (blocks + each - 1) / each * ((task.rows + input_rows - 1) / input_rows);
}

// Of a multiprocessor, fitted to times on an H200 (qkv, output, gate and up, down of Ministral-8B, 64 to 256
// rows, all cuts: the fastest or within 7% of it). Blocks that wait for each other must all run at once.
template <int kN>
double estimated_cycles(const WideTask& task, const Cut& cut) {
  const int clusters = streamed_blocks() / task.sharing;
  const int rounds = (cluster_tiles(task, cut, kN) * cut.splits + clusters - 1) / clusters;
  if (cut.splits > 1 && (task.gated || task.chunks < cut.splits || rounds > 1)) return 1e18;
  // Of a chunk: the tensor cores', and what passes until a warpgroup has fetched and expanded its codes.
  const double chunk = std::max(cut.groups * 8 * (kN / 2) / 0.85, 500. + 340 * cut.groups);
  const double join = cut.splits > 1 ? 1500. * cut.splits + 14. * cut.groups * kN : 0;
  return rounds * ((task.chunks + cut.splits - 1) / cut.splits * chunk + 6000 + join);
}

template <int kN>
Cut cut_of(const WideTask& task) {
  Cut best = {2, 1};
  for (const int groups : {2, 3})
    for (int splits = 1; splits <= kMostSplits; ++splits) {
      const Cut cut = {groups, splits};
      if (estimated_cycles<kN>(task, cut) < estimated_cycles<kN>(task, best)) best = cut;
    }
  return best;
}

template <int kN, int kGroups>
void start(WideTask task, const Cut& cut, cudaStream_t stream) {
  using L = WideLayout<kN, kGroups>;
  static_assert(kGroups * L::kSums * 128 <= 2 * kMostPartialSums);
  task.splits = cut.splits;
  task.row_tiles = (task.rows + kN - 1) / kN;
  task.tiles = cluster_tiles(task, cut, kN);
  task.stage_bytes = (L::kInputBytes + kGroups * task.panels.block_bytes + 1023) / 1024 * 1024;
  const int parts = task.gated ? kGroups * L::kPartBytes : 0;
  task.stages = std::min(kMostStages, (kSharedBytes - parts) / task.stage_bytes);
  static const cudaError_t allowed =
      cudaFuncSetAttribute(wide_kernel<L>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes + 1024);
  (void)allowed;  // the launch fails if this did
  const int clusters = std::min(task.tiles * task.splits, streamed_blocks() / task.sharing);
  launch_clusters(task.sharing, wide_kernel<L>, static_cast<unsigned>(clusters * task.sharing), L::kThreads,
                  static_cast<std::size_t>(task.stages * task.stage_bytes + parts + 1024), stream, task);
}

template <int kN>
void start(const WideTask& task, cudaStream_t stream) {
  const Cut cut = cut_of<kN>(task);
  cut.groups == 3 ? start<kN, 3>(task, cut, stream) : start<kN, 2>(task, cut, stream);
}

}  // namespace

bool supports_wide_panels(const Weight& weight, std::int64_t rows, bool gated) {
  const Int4Panels& panels = weight.panels;
  return weight.format == WeightFormat::kInt4Panels && rows > kStreamedRows && panels.group_columns == 128 &&
         (panels.scale == PanelScale::kBf16 || panels.scale == PanelScale::kNone) &&
         weight.rows % (gated ? 128 : 8) == 0;
}

int wide_box_rows(std::int64_t rows) {
  return input_rows(rows) / 2;
}

void wide_panels(const StreamedLinear& linear, cudaStream_t stream) {
  WideTask task = {};
  task.input_tiles = linear.input_tiles;
  task.panels = linear.panels;
  task.rows = static_cast<int>(linear.rows);
  task.half_rows = static_cast<int>(linear.gated ? linear.weight_rows / 2 : linear.weight_rows);
  task.half_blocks = (task.half_rows + 63) / 64;
  task.chunks = static_cast<int>(linear.stride / 128);
  task.gated = linear.gated;
  task.sharing = linear.gated ? 2 : 1;
  task.weight_scales = linear.weight_scales;
  task.bias = linear.bias;
  task.out = linear.out;
  task.out_stride = linear.out_stride;
  task.partial = static_cast<float*>(linear.workspace);
  task.arrivals = reinterpret_cast<int*>(static_cast<char*>(linear.workspace) + kPartialBytes);
  switch (input_rows(linear.rows)) {
    case 64: return start<64>(task, stream);
    case 96: return start<96>(task, stream);
    default: return start<128>(task, stream);
  }
}

}  // namespace bise::cuda
