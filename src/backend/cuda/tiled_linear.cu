// Two blocks of a pair have neighbouring tiles of 128 rows and the same tile of 256 weight rows: each brings
// half of that to both by the copy engine, so that the second-level cache is read less (Hopper's thread block
// clusters). In a block one thread fills a ring of shared memory and two warpgroups multiply 64 rows each;
// nothing but the ring holds them together, so that one writes its results while the other multiplies. A
// block does one tile after another, and the ring runs on.
//
// A row's result does not depend on the other rows.
#include "backend/cuda/tiled_linear.h"

#include <algorithm>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/grouped_linear.h"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/streamed_linear.h"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {
namespace {

constexpr int kTileRows = 128, kTileColumns = 256;  // of the input, of the weight
constexpr int kTiledStages = 4, kTiledConsumers = 256, kTiledThreads = kTiledConsumers + 128;
constexpr int kInputBytes = kTileRows * 128, kTiledStageBytes = (kTileRows + kTileColumns) * 128;
constexpr int kTiledBytes = kTiledStages * kTiledStageBytes + 1024;
constexpr int kTiledConsumerRegisters = 232, kTiledProducerRegisters = 40;
constexpr int kTiledSums = kTileColumns / 2;  // of a thread

struct TiledTask {
  CUtensorMap input_tiles, weight_tiles;
  int chunks;  // of a row, 128 columns each
  int rows;
  int row_pairs, column_tiles;
  int band;  // pairs of row tiles that are done with all of the weight before the next
  const float *row_scales, *column_scales;
  int half_columns;  // between a column of gate and its of up
  bf16* out;
  std::int64_t out_stride;
  TiledHeads heads;
};

struct TiledBarriers {
  std::uint64_t full[kTiledStages], empty[kTiledStages];
};

// The columns' scales of a tile, as its sums stand, for each warpgroup: of this tile and of the one before,
// which another warp may still read.
struct alignas(16) TiledScales {
  float of[2][2][kTileColumns];
};

struct TiledPlace {
  int row_tile, column_tile;
};

// Of the `index`-th tile of all pairs of blocks. Those that run at one time share their operands.
__device__ inline TiledPlace tiled_place(const TiledTask& task, int index, int rank) {
  const int in_band = task.band * task.column_tiles, first = index / in_band * task.band;
  const int height = min(task.band, task.row_pairs - first), rest = index % in_band;
  return {2 * (first + rest % height) + rank, rest / height};
}

// One thread.
template <bool kGated>
__device__ void feed_tiles(const TiledTask& task, char* ring, TiledBarriers& barriers, int rank) {
  constexpr unsigned kBoth = 3;
  const std::uint64_t policy = usual_policy();
  prefetch_map(&task.input_tiles);
  prefetch_map(&task.weight_tiles);
  wait_for_earlier_kernels();
  const int tiles = task.row_pairs * task.column_tiles, pairs = static_cast<int>(gridDim.x) / 2;
  RingPlace place;
  for (int tile = static_cast<int>(blockIdx.x) / 2; tile < tiles; tile += pairs) {
    const TiledPlace at = tiled_place(task, tile, rank);
    const int weight_row = at.column_tile * kTileColumns + rank * (kTileColumns / 2);
    for (int chunk = 0; chunk < task.chunks; ++chunk, place.advance(kTiledStages)) {
      char* to = ring + place.stage * kTiledStageBytes;
      char* weights = to + kInputBytes + rank * (kTiledStageBytes - kInputBytes) / 2;
      std::uint64_t* full = barriers.full + place.stage;
      const int column = chunk * 128;
      barrier_wait(barriers.empty + place.stage, place.parity ^ 1);
      barrier_expect_bytes(full, kTiledStageBytes);
      copy_tile(to, &task.input_tiles, column, at.row_tile * kTileRows, full, policy);
      if constexpr (kGated)
        copy_tile_of_halves_to(kBoth, weights, &task.weight_tiles, column, weight_row / 16, full, policy);
      else
        copy_tile_to(kBoth, weights, &task.weight_tiles, column, weight_row, full, policy);
    }
  }
}

// A warpgroup's products with one tile of the weight.
__device__ void multiply_tile(const TiledTask& task, const char* ring, TiledBarriers& barriers,
                              RingPlace& place, int (&sums)[kTiledSums]) {
  const int group = threadIdx.x / 128;
  const int thread = static_cast<int>(threadIdx.x % 128);
  // A warpgroup frees a stage in both blocks: the other brings half of it.
  const auto release = [&](int stage) {
    if (thread < 2) barrier_arrive_in(barriers.empty + stage, thread);
  };
  int last = 0;
  for (int chunk = 0; chunk < task.chunks; ++chunk, place.advance(kTiledStages)) {
    barrier_wait(barriers.full + place.stage, place.parity);
    const char* at = ring + place.stage * kTiledStageBytes;
    const std::uint32_t a = tile_descriptor(at + group * (kInputBytes / 2)),
                        b = tile_descriptor(at + kInputBytes);
    hold(sums);
    products_begin();
#pragma unroll
    for (int step = 0; step < 4; ++step)
      WarpgroupProduct<Operand::kInt8, kTileColumns>::add(sums, a + 2 * step, b + 2 * step, chunk + step > 0);
    products_commit();
    products_wait<1>();
    if (chunk > 0) release(last);
    last = place.stage;
  }
  products_wait<0>();
  release(last);
  hold(sums);
}

// Asks for the columns' scales; scales_there() waits for them.
template <bool kGated>
__device__ void fetch_scales(const TiledTask& task, int column_tile, float* scales) {
  const int thread = threadIdx.x % 128;
  if (thread >= kTileColumns / 4) return;
  int column = column_tile * kTileColumns + 4 * thread;
  if constexpr (kGated) {
    // Eights of gate and of up in turn.
    const int eight = thread / 2, within = thread % 2 * 4;
    column = column_tile * (kTileColumns / 2) + eight / 2 * 8 + within + eight % 2 * task.half_columns;
  }
  copy_16(shared_address(scales + 4 * thread), task.column_scales + column, 16);
  copies_commit();
}
__device__ inline void scales_there() {
  copies_wait<0>();
  sync_threads_of(1 + threadIdx.x / 128, 128);
}

// words[i] of a quad's thread t are columns 8 * i + 2 * t and the next; they become the eight columns from
// 8 * t.
__device__ inline uint4 whole_eights(const std::uint32_t (&words)[4]) {
  const int t = threadIdx.x % 4;
  const bool odd = t % 2 == 1, high = t >= 2;
  std::uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const std::uint32_t got = __shfl_xor_sync(~0u, odd ? words[i] : words[i + 1], 1);
    pairs[i] = odd ? got : words[i];
    pairs[i + 1] = odd ? words[i + 1] : got;
  }
  const std::uint32_t first = __shfl_xor_sync(~0u, high ? pairs[0] : pairs[2], 2),
                      second = __shfl_xor_sync(~0u, high ? pairs[1] : pairs[3], 2);
  return high ? uint4{first, second, pairs[2], pairs[3]} : uint4{pairs[0], pairs[1], first, second};
}

__device__ inline std::uint32_t bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return reinterpret_cast<const std::uint32_t&>(pair);
}

// A thread's rows of a tile: row[h] for sums 2 * h and 2 * h + 1 of every four.
struct TiledRows {
  int row[2];
  bool is_there[2];
  float scale[2];
};
__device__ inline TiledRows tiled_rows(const TiledTask& task, int row_tile) {
  TiledRows rows;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int row = row_tile * kTileRows + threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4 + 8 * h;
    rows.is_there[h] = row < task.rows;
    rows.row[h] = min(row, task.rows - 1);
    rows.scale[h] = task.row_scales[rows.row[h]];
  }
  return rows;
}

// A tile's sums as they stand in a thread, with the scales of its columns.
struct TiledSumsOf {
  const int (&sums)[kTiledSums];
  const float* scales;
  // Of columns 8 * i + 2 * (lane % 4) and the next.
  __device__ float2 scaled(int i, int h, float row) const {
    const float2 columns = *reinterpret_cast<const float2*>(scales + 8 * i + threadIdx.x % 4 * 2);
    return {static_cast<float>(sums[4 * i + 2 * h]) * columns.x * row,
            static_cast<float>(sums[4 * i + 2 * h + 1]) * columns.y * row};
  }
};

// A tile's eights of columns are in turn of gate and of up.
__device__ void write_gated(const TiledTask& task, const TiledPlace& at, const TiledSumsOf& sums) {
  const TiledRows rows = tiled_rows(task, at.row_tile);
  const int t = threadIdx.x % 4, first = at.column_tile * (kTileColumns / 2);
#pragma unroll
  for (int four = 0; four < 4; ++four) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      std::uint32_t words[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 gate = sums.scaled(8 * four + 2 * i, h, rows.scale[h]);
        const float2 up = sums.scaled(8 * four + 2 * i + 1, h, rows.scale[h]);
        words[i] = bf16_pair(gate_times_up(gate.x, up.x), gate_times_up(gate.y, up.y));
      }
      const uint4 eight = whole_eights(words);
      bf16* to = task.out + rows.row[h] * task.out_stride + first + 32 * four + 8 * t;
      if (rows.is_there[h]) *reinterpret_cast<uint4*>(to) = eight;
    }
  }
}

// Where a token's keys or values stand in the cache, in values.
__device__ inline std::int64_t cache_slot(const TiledHeads& heads, int token) {
  const std::int32_t position = heads.step.positions[token];
  const std::int64_t sequence = heads.step.token_sequence[token];
  const CacheView& cache = heads.cache;
  const std::int64_t block =
      heads.step.block_table[(sequence * heads.step.groups + heads.group) * heads.step.blocks_per_sequence +
                             position / cache.block_size];
  return (block * cache.block_size + position % cache.block_size) * cache.num_kv_heads * kTiledHeadDim;
}

// A tile's two heads. Pairs (i, i + head_dim / 2) of queries and keys turn by a token's angles.
__device__ void write_heads(const TiledTask& task, const TiledPlace& at, const TiledSumsOf& sums) {
  const TiledRows rows = tiled_rows(task, at.row_tile);
  const int t = threadIdx.x % 4, num_heads = static_cast<int>(task.heads.num_heads);
  const int kv_heads = static_cast<int>(task.heads.cache.num_kv_heads);
#pragma unroll
  for (int two = 0; two < 2; ++two) {
    const int head = at.column_tile * 2 + two;
    const bool turns = head < num_heads + kv_heads;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      bf16* to = task.out + rows.row[h] * task.out_stride + head * kTiledHeadDim;
      if (head >= num_heads) {
        const int kv_head = head - num_heads - (turns ? 0 : kv_heads);
        void* cached = turns ? task.heads.cache.keys : task.heads.cache.values;
        to = static_cast<bf16*>(cached) + cache_slot(task.heads, rows.row[h]) + kv_head * kTiledHeadDim;
      }
      const float* angles = task.heads.angles + rows.row[h] * kTiledHeadDim;
#pragma unroll
      for (int four = 0; four < 2; ++four) {
        std::uint32_t low[4], high[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const int column = 32 * four + 8 * i + 2 * t, eight = 16 * two + 4 * four + i;
          float2 x = sums.scaled(eight, h, rows.scale[h]), y = sums.scaled(eight + 8, h, rows.scale[h]);
          if (turns) {
            const float4 angle = __ldg(reinterpret_cast<const float4*>(angles + 2 * column));
            const float2 turned = {x.x * angle.x - y.x * angle.y, x.y * angle.z - y.y * angle.w};
            y = {y.x * angle.x + x.x * angle.y, y.y * angle.z + x.y * angle.w};
            x = turned;
          }
          low[i] = bf16_pair(x.x, x.y);
          high[i] = bf16_pair(y.x, y.y);
        }
        const uint4 lows = whole_eights(low), highs = whole_eights(high);
        if (rows.is_there[h]) {
          *reinterpret_cast<uint4*>(to + 32 * four + 8 * t) = lows;
          *reinterpret_cast<uint4*>(to + kTiledHeadDim / 2 + 32 * four + 8 * t) = highs;
        }
      }
    }
  }
}

template <bool kGated>
__global__ void __cluster_dims__(2, 1, 1) __launch_bounds__(kTiledThreads, 1)
    tiled_kernel(const __grid_constant__ TiledTask task) {
  extern __shared__ char memory[];
  __shared__ TiledBarriers barriers;
  __shared__ TiledScales all_scales;
  char* ring = memory + (1024 - shared_address(memory) % 1024) % 1024;
  const int rank = cluster_rank();

  let_next_kernel_begin();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < kTiledStages; ++stage) {
      barrier_init(barriers.full + stage, 1);
      barrier_init(barriers.empty + stage, 4);  // two warpgroups of two blocks
    }
    barrier_init_visible();
  }
  sync_cluster_memory();

  if (threadIdx.x >= kTiledConsumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kTiledProducerRegisters));
    if (threadIdx.x == kTiledConsumers) feed_tiles<kGated>(task, ring, barriers, rank);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kTiledConsumerRegisters));
    wait_for_earlier_kernels();
    const int tiles = task.row_pairs * task.column_tiles, pairs = static_cast<int>(gridDim.x) / 2;
    RingPlace place;
    float* scales = all_scales.of[threadIdx.x / 128][0];
    int turn = 0;
    for (int tile = static_cast<int>(blockIdx.x) / 2; tile < tiles; tile += pairs, turn ^= 1) {
      const TiledPlace at = tiled_place(task, tile, rank);
      fetch_scales<kGated>(task, at.column_tile, scales + turn * kTileColumns);
      int sums[kTiledSums];
      multiply_tile(task, ring, barriers, place, sums);
      scales_there();
      const TiledSumsOf result{sums, scales + turn * kTileColumns};
      if constexpr (kGated)
        write_gated(task, at, result);
      else
        write_heads(task, at, result);
    }
  }
  // Neither block's shared memory goes while the other may still write to it.
  sync_cluster_memory();
}

// Of the input, in the second-level cache while all of the weight passes.
constexpr std::int64_t kBandBytes = std::int64_t{16} << 20;

int multiprocessors() {
  static const int count = [] {
    int device = 0, found = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&found, cudaDevAttrMultiProcessorCount, device);
    return found;
  }();
  return count;
}

// Fills in what both kinds share and starts the kernel.
template <bool kGated>
void start_tiled(TiledTask task, const TiledLinear& linear, cudaStream_t stream) {
  const std::int64_t stride = linear.in.stride;
  task.input_tiles = tile_map(linear.in.codes, 1, linear.rows, stride, kTileRows);
  task.chunks = static_cast<int>(stride / 128);
  task.rows = static_cast<int>(linear.rows);
  task.row_pairs = static_cast<int>((linear.rows + 2 * kTileRows - 1) / (2 * kTileRows));
  task.column_tiles = static_cast<int>(linear.weight_rows / kTileColumns);
  task.band = static_cast<int>(std::max<std::int64_t>(1, kBandBytes / (2 * kTileRows * stride)));
  task.row_scales = linear.in.scales;
  task.column_scales = linear.weight_scales;
  task.out = static_cast<bf16*>(linear.out);
  const auto kernel = tiled_kernel<kGated>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kTiledBytes);
  (void)allowed;  // the launch fails if this did
  const int pairs = std::min(multiprocessors() / 2, task.row_pairs * task.column_tiles);
  launch(kernel, static_cast<unsigned>(2 * pairs), kTiledThreads, kTiledBytes, stream, task);
}

}  // namespace

bool supports_tiled(std::int64_t weight_rows) {
  return weight_rows % kTileColumns == 0;
}

void tiled_gated(const TiledLinear& linear, cudaStream_t stream) {
  if (linear.rows == 0) return;
  const std::int64_t half = linear.weight_rows / 2;
  TiledTask task = {};
  task.weight_tiles = gated_tile_map(linear.weight, 1, half, linear.in.stride, kTileColumns / 2);
  task.half_columns = static_cast<int>(half);
  task.out_stride = half;
  start_tiled<true>(task, linear, stream);
}

void tiled_qkv(const TiledLinear& linear, const TiledHeads& heads, cudaStream_t stream) {
  if (linear.rows == 0) return;
  TiledTask task = {};
  task.weight_tiles = tile_map(linear.weight, 1, linear.weight_rows, linear.in.stride, kTileColumns / 2);
  task.out_stride = linear.weight_rows;
  task.heads = heads;
  start_tiled<false>(task, linear, stream);
}

}  // namespace bise::cuda
