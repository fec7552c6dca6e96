// Every weight byte is read once from memory by the copy engine into a ring of shared memory, deep enough to
// keep the memory busy; two warpgroups multiply each tile, the weight's rows being the product's rows.
//
// The work, tiles of 128 weight rows times chunks of 128 bytes of columns, is laid out in one line and cut
// into one equal piece for each multiprocessor (stream-K; Osama et al. 2023). Where a tile is cut, the blocks
// leave their sums in the workspace, and the last to finish adds them in the order of the columns. Where cuts
// fall depends on the weight alone, so a row's result does not depend on the other rows.
#include "backend/cuda/streamed_linear.h"

#include <algorithm>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {
namespace {

constexpr int kTileRows = kWeightTileRows;
constexpr int kRowBytes = 128;
constexpr int kConsumers = 256;             // two warpgroups, each with half of the tile's rows
constexpr int kThreads = kConsumers + 128;  // and one that feeds them
// Registers of a thread: consumers hold the sums. 256 * 232 + 128 * 40 fit the multiprocessor.
constexpr int kConsumerRegisters = 232, kProducerRegisters = 40;
constexpr int kMostBlocks = 132;  // multiprocessors of an H100 or H200
constexpr int kMostRegisters = kStreamedRows / 2;

struct Task {
  CUtensorMap weight_tiles, input_tiles;
  int rows, columns, tiles, chunks, values_per_chunk;
  int blocks;  // at most the work items, so that each has one
  const float *in_scales, *weight_scales, *bias;
  void* out;
  void* partial;  // [blocks, 2, registers, kConsumers]
  int* arrivals;  // [tiles]
};

template <int kN>
struct Ring {
  static constexpr int kWeightBytes = kTileRows * kRowBytes, kInputBytes = kN * kRowBytes;
  static constexpr int kStageBytes = kWeightBytes + kInputBytes;
  static constexpr int kFit = 200 * 1024 / kStageBytes;
  static constexpr int kStages = kFit < 10 ? kFit : 10;
  static constexpr int kBytes = kStages * kStageBytes + 1024;  // aligned by the kernel
};

// The first work item of a block.
__device__ inline int first_item(int block, const Task& task) {
  return static_cast<int>(static_cast<std::int64_t>(block) * task.tiles * task.chunks / task.blocks);
}

// The block whose piece holds `item`.
__device__ inline int block_of(int item, const Task& task) {
  const std::int64_t items = static_cast<std::int64_t>(task.tiles) * task.chunks;
  int block = static_cast<int>(static_cast<std::int64_t>(item) * task.blocks / items);
  while (block + 1 < task.blocks && first_item(block + 1, task) <= item) ++block;
  while (first_item(block, task) > item) --block;
  return block;
}

// Where a block leaves its sums of `tile`: its first tile or its last.
__device__ inline int partial_slot(int block, int tile, const Task& task) {
  return 2 * block + (tile != first_item(block, task) / task.chunks);
}

template <class Sum, class Out, int kN>
__device__ void write_tile(const Sum (&sums)[kN / 2], int tile, const Task& task) {
  const int thread = threadIdx.x, lane = thread % 32, g = lane / 4, t = lane % 4;
  const int first = tile * kTileRows + thread / 32 * 16 + g;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int column = first + half * 8;
    if (column >= task.columns) continue;
    const float scale = task.weight_scales ? task.weight_scales[column] : 1.f;
    const float bias = task.bias ? task.bias[column] : 0.f;
#pragma unroll
    for (int i = 0; i < kN / 4; ++i) {
      const int row = i / 2 * 8 + 2 * t + i % 2;
      if (row >= task.rows) continue;
      float value = static_cast<float>(sums[i / 2 * 4 + half * 2 + i % 2]) * scale;
      if (task.in_scales) value *= task.in_scales[row];
      store_value(static_cast<Out*>(task.out) + static_cast<std::int64_t>(row) * task.columns + column,
                  value + bias);
    }
  }
}

// Leaves the sums of a part of a tile; the last block to come adds all parts into `sums` and returns true.
template <class Sum, int kN>
__device__ bool join_parts(Sum (&sums)[kN / 2], int tile, const Task& task) {
  const int first = block_of(tile * task.chunks, task), last = block_of((tile + 1) * task.chunks - 1, task);
  Sum* partial = static_cast<Sum*>(task.partial);
  Sum* mine = partial + static_cast<std::int64_t>(partial_slot(blockIdx.x, tile, task)) * kN / 2 * kConsumers;
#pragma unroll
  for (int i = 0; i < kN / 2; ++i) __stcg(mine + i * kConsumers + threadIdx.x, sums[i]);
  __threadfence();
  __shared__ int is_last;
  asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");
  if (threadIdx.x == 0) {
    is_last = atomicAdd(task.arrivals + tile, 1) == last - first;
    if (is_last) task.arrivals[tile] = 0;
  }
  asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");
  const bool joins = is_last;
  asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");
  if (!joins) return false;
  __threadfence();
  for (int block = first; block <= last; ++block) {
    const Sum* part =
        partial + static_cast<std::int64_t>(partial_slot(block, tile, task)) * kN / 2 * kConsumers;
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) {
      const Sum value = __ldcg(part + i * kConsumers + threadIdx.x);
      sums[i] = block == first ? value : sums[i] + value;
    }
  }
  return true;
}

template <Operand kOperand, int kN, class Out>
__global__ void __launch_bounds__(kThreads, 1) streamed_kernel(const __grid_constant__ Task task) {
  using Sum = std::conditional_t<kOperand == Operand::kInt8, int, float>;
  using R = Ring<kN>;
  extern __shared__ char memory[];
  __shared__ std::uint64_t full[R::kStages], empty[R::kStages];
  char* ring = memory + (1024 - shared_address(memory) % 1024) % 1024;

  if (threadIdx.x == 0) {
    for (int stage = 0; stage < R::kStages; ++stage) {
      barrier_init(full + stage, 1);
      barrier_init(empty + stage, kConsumers / 128);
    }
    barrier_init_visible();
  }
  __syncthreads();
  const int first = first_item(blockIdx.x, task), last = first_item(blockIdx.x + 1, task);

  if (threadIdx.x >= kConsumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kProducerRegisters));
    if (threadIdx.x == kConsumers) {
      prefetch_map(&task.weight_tiles);
      prefetch_map(&task.input_tiles);
      const std::uint64_t once = read_once_policy(), often = read_often_policy();
      for (int item = first; item < last; ++item) {
        const int use = item - first, stage = use % R::kStages, round = use / R::kStages;
        if (round > 0) barrier_wait(empty + stage, (round - 1) % 2);
        char* at = ring + stage * R::kStageBytes;
        const int tile = item / task.chunks, column = item % task.chunks * task.values_per_chunk;
        barrier_expect_bytes(full + stage, R::kStageBytes);
        copy_tile(at, &task.weight_tiles, column, tile * kTileRows, full + stage, once);
        copy_tile(at + R::kWeightBytes, &task.input_tiles, column, 0, full + stage, often);
      }
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    const int group = threadIdx.x / 128;
    for (int item = first; item < last;) {
      const int tile = item / task.chunks;
      const int end = min(last, (tile + 1) * task.chunks);
      const bool whole = item % task.chunks == 0 && end == (tile + 1) * task.chunks;
      Sum sums[kN / 2];
#pragma unroll
      for (int i = 0; i < kN / 2; ++i) sums[i] = 0;
      for (; item < end; ++item) {
        const int use = item - first, stage = use % R::kStages;
        barrier_wait(full + stage, use / R::kStages % 2);
        const char* at = ring + stage * R::kStageBytes;
        const std::uint64_t a = tile_descriptor(at + group * 64 * kRowBytes);
        const std::uint64_t b = tile_descriptor(at + R::kWeightBytes);
        // The tensor cores' own sums of e4m3 products keep few bits (DeepSeek-V3, 2024, section 3.3.2): they
        // hold one chunk, and float32 registers the rest.
        Sum chunk[kN / 2];
        auto& target = kOperand == Operand::kE4M3 ? chunk : sums;
        products_begin();
#pragma unroll
        for (int step = 0; step < kRowBytes / 32; ++step)
          WarpgroupProduct<kOperand, kN>::add(target, a + 2 * step, b + 2 * step,
                                              kOperand != Operand::kE4M3 || step > 0);
        products_commit();
        products_wait<0>();
        if constexpr (kOperand == Operand::kE4M3) {
#pragma unroll
          for (int i = 0; i < kN / 2; ++i) sums[i] += chunk[i];
        }
        if (threadIdx.x % 128 == 0) barrier_arrive(empty + stage);
      }
      if (whole || join_parts<Sum, kN>(sums, tile, task)) write_tile<Sum, Out, kN>(sums, tile, task);
    }
  }
}

template <Operand kOperand, int kN, class Out>
void launch(const Task& task, cudaStream_t stream) {
  const auto kernel = streamed_kernel<kOperand, kN, Out>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Ring<kN>::kBytes);
  (void)allowed;  // the launch below fails if this did
  kernel<<<static_cast<unsigned>(task.blocks), kThreads, Ring<kN>::kBytes, stream>>>(task);
}

template <class Body>
void with_input_tile(std::int64_t rows, Body body) {
  switch (input_tile_rows(rows)) {
    case 8: return body(std::integral_constant<int, 8>());
    case 16: return body(std::integral_constant<int, 16>());
    case 32: return body(std::integral_constant<int, 32>());
    default: return body(std::integral_constant<int, 64>());
  }
}

int tiles_of(std::int64_t columns) {
  return static_cast<int>((columns + kTileRows - 1) / kTileRows);
}

constexpr std::size_t kPartialBytes = std::size_t{kMostBlocks} * 2 * kMostRegisters * kConsumers * 4;

}  // namespace

int input_tile_rows(std::int64_t rows) {
  int tile = 8;
  while (tile < rows) tile *= 2;
  return tile;
}

std::size_t streamed_workspace(std::int64_t most_columns) {
  return kPartialBytes + static_cast<std::size_t>(tiles_of(most_columns)) * sizeof(int);
}

void streamed_linear(const StreamedLinear& linear, cudaStream_t stream) {
  const int value_bytes = linear.encoding == Encoding::kBf16 ? 2 : 1;
  Task task{.weight_tiles = linear.weight_tiles,
            .input_tiles = linear.input_tiles,
            .rows = static_cast<int>(linear.rows),
            .columns = static_cast<int>(linear.columns),
            .tiles = tiles_of(linear.columns),
            .chunks = static_cast<int>(linear.stride * value_bytes / kRowBytes),
            .values_per_chunk = kRowBytes / value_bytes,
            .blocks = 0,
            .in_scales = linear.in_scales,
            .weight_scales = linear.weight_scales,
            .bias = linear.bias,
            .out = linear.out.data,
            .partial = linear.workspace,
            .arrivals = reinterpret_cast<int*>(static_cast<char*>(linear.workspace) + kPartialBytes)};
  task.blocks = std::min(kMostBlocks, task.tiles * task.chunks);
  with_input_tile(linear.rows, [&](auto tile) {
    constexpr int kN = decltype(tile)::value;
    with_type(linear.out, [&](auto* values) {
      using Out = std::remove_pointer_t<decltype(values)>;
      switch (linear.encoding) {
        case Encoding::kBf16: return launch<Operand::kBf16, kN, Out>(task, stream);
        case Encoding::kInt8Token: return launch<Operand::kInt8, kN, Out>(task, stream);
        default: return launch<Operand::kE4M3, kN, Out>(task, stream);
      }
    });
  });
}

}  // namespace bise::cuda
