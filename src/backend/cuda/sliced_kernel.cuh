// The kernel behind sliced_linear.h. A block takes a tile of whole rows of the weight, which are the
// product's columns; the input's rows, up to 32, are the product's 64 rows, of which the others are never
// looked at. The copy engine brings chunks of 128 bytes of the tile's rows and of the input's into a ring;
// warpgroups multiply the chunks in turn and add their sums in a fixed order at the end, the same for any
// number of input rows.
#pragma once

#include <algorithm>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/streamed_linear.h"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {

struct SlicedTask {
  CUtensorMap weight_tiles, input_tiles;
  int chunk_columns, chunks;  // of a row
  int rows, row_box;          // of the input; as many as a box of it has
  int half_rows;              // of the weight; half of them where it joins gate and up
  int tiles, gated;
  int stages, stage_bytes;
  int apart;  // so many tiles of the weight are on their way at once while earlier kernels run
  const float *in_scales, *weight_scales, *bias;
  Values out;
  std::int64_t out_stride;
};

constexpr int kMostSlicedStages = 32;
constexpr int kSlicedBytes = 227 * 1024 - 3072;  // beside static memory and the alignment
// A product reads 64 rows of 128 bytes where the last box of the input may have eight.
constexpr int kReadBeyond = 64 * 128;

template <int kN>
struct SlicedLayout {
  static constexpr int kGroups = kN >= 96 ? 2 : 4;
  static constexpr int kConsumers = kGroups * 128, kThreads = kConsumers + 128;
  static constexpr int kSums = kN / 2;
  // Of a multiprocessor's 65536 registers.
  static constexpr int kConsumerRegisters = kGroups == 4 ? 112 : 232;
  static constexpr int kProducerRegisters = kGroups == 4 ? 32 : 40;
  static constexpr int kSumStride = kN + 8;  // of a row of sums in shared memory
  static int sum_bytes(int row_box) { return kGroups * row_box * kSumStride * 4; }
};

template <int kN>
struct SlicedShared {
  // What fills the ring first counts apart, weights and inputs; later both count for `full`.
  std::uint64_t first_weights[kMostSlicedStages], full[kMostSlicedStages], empty[kMostSlicedStages];
  float weight_scales[kN], in_scales[kStreamedRows];
};

constexpr int kFeeders = 4;  // a thread of each warp

// Of a weight on its way while earlier kernels run, in each multiprocessor. All that a ring holds, 26 MB on
// the device, takes 6 us, and what those kernels read would wait behind it; memory is busy with a tenth of
// that. A weight that the ring holds as a whole has the time that attention takes. (H200, Ministral-8B's
// shape, FP8, 1 sequence: attention 8.9 us after a whole ring, 5.5 after 32 KB at once.)
constexpr int kWindowBytes = 48 * 1024, kFittingWindowBytes = 24 * 1024;

// One thread of kFeeders, which take the ring's items in turn: one alone could not ask for small tiles as
// fast as memory brings them. Weights that fit the ring are fetched while earlier kernels, which make the
// inputs, still run.
template <int kN>
class SliceFeeder {
 public:
  __device__ SliceFeeder(const SlicedTask& task, char* ring, SlicedShared<kN>& shared, int feeder)
      : task_(task), ring_(ring), shared_(shared), feeder_(feeder) {}

  // Starts the barriers of this feeder's stages and at once, before other warps of the block are ready, the
  // first tiles.
  __device__ void begin() {
    for (int stage = feeder_; stage < task_.stages; stage += kFeeders) {
      barrier_init(shared_.first_weights + stage, 1);
      barrier_init(shared_.full + stage, 1);
      barrier_init(shared_.empty + stage, 1);
    }
    barrier_init_visible();
    for (int chunk = feeder_; chunk < begun(); chunk += kFeeders) fetch_first_weights(chunk);
  }

  // All warps of the block have come to a barrier since all feeders' begin().
  __device__ void run() {
    prefetch_map(&task_.input_tiles);
    for (int chunk = begun() + feeder_; chunk < ahead(); chunk += kFeeders) {
      barrier_wait(shared_.first_weights + chunk - task_.apart, 0);
      fetch_first_weights(chunk);
    }
    wait_for_earlier_kernels();
    int chunk = feeder_;
    for (; chunk < ahead(); chunk += kFeeders) {
      barrier_expect_bytes(shared_.full + chunk, input_bytes());
      fetch_inputs(chunk, chunk);
    }
    RingPlace place;
    for (place.advance(chunk - ahead(), task_.stages); chunk < task_.chunks;
         chunk += kFeeders, place.advance(kFeeders, task_.stages)) {
      barrier_wait(shared_.empty + place.stage, place.parity);
      barrier_expect_bytes(shared_.full + place.stage, input_bytes() + kWeightBytes);
      fetch_weights(chunk, place.stage, shared_.full + place.stage);
      fetch_inputs(chunk, place.stage);
    }
  }

 private:
  static constexpr std::uint32_t kWeightBytes = kN * 128;
  __device__ int ahead() const { return min(task_.stages, task_.chunks); }
  // Chunks that begin() asks for: as many of each feeder.
  __device__ int begun() const {
    return min((task_.apart + kFeeders - 1) / kFeeders * kFeeders,
               (ahead() + kFeeders - 1) / kFeeders * kFeeders);
  }
  __device__ std::uint32_t input_bytes() const { return static_cast<std::uint32_t>(task_.row_box) * 128; }

  __device__ void fetch_first_weights(int chunk) {
    if (chunk >= ahead()) return;
    barrier_expect_bytes(shared_.first_weights + chunk, kWeightBytes);
    fetch_weights(chunk, chunk, shared_.first_weights + chunk);
  }
  __device__ void fetch_weights(int chunk, int stage, std::uint64_t* full) {
    char* to = ring_ + stage * task_.stage_bytes + input_bytes();
    const int column = chunk * task_.chunk_columns, half = kN / 2, tile = blockIdx.x;
    if (task_.gated) {
      copy_tile(to, &task_.weight_tiles, column, tile * half, full, once_);
      copy_tile(to + half * 128, &task_.weight_tiles, column, task_.half_rows + tile * half, full, once_);
    } else {
      copy_tile(to, &task_.weight_tiles, column, tile * kN, full, once_);
    }
  }
  __device__ void fetch_inputs(int chunk, int stage) {
    copy_tile(ring_ + stage * task_.stage_bytes, &task_.input_tiles, chunk * task_.chunk_columns, 0,
              shared_.full + stage, often_);
  }

  const SlicedTask& task_;
  char* ring_;
  SlicedShared<kN>& shared_;
  int feeder_;
  std::uint64_t often_ = read_often_policy(), once_ = read_once_policy();
};

// Adds the products of the warpgroup's chunks.
template <Operand kOperand, int kN, class Sum>
__device__ void add_slices(const SlicedTask& task, const char* ring, SlicedShared<kN>& shared,
                           Sum (&sums)[kN / 2]) {
  using L = SlicedLayout<kN>;
  const int group = threadIdx.x / 128, input_bytes = task.row_box * 128;
  RingPlace place;
  place.advance(group, task.stages);
  for (int chunk = group; chunk < task.chunks; chunk += L::kGroups, place.advance(L::kGroups, task.stages)) {
    if (chunk < task.stages) barrier_wait(shared.first_weights + place.stage, 0);
    barrier_wait(shared.full + place.stage, place.parity);
    const char* at = ring + place.stage * task.stage_bytes;
    const std::uint32_t a = tile_descriptor(at), b = tile_descriptor(at + input_bytes);
    // The tensor cores' own sums of e4m3 products keep few bits (DeepSeek-V3, 2024, section 3.3.2): they hold
    // one chunk, and float32 registers the rest.
    constexpr bool kApart = kOperand == Operand::kE4M3;
    Sum apart[kApart ? kN / 2 : 1];
    hold(sums);
    products_begin();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      if constexpr (kApart)
        WarpgroupProduct<kOperand, kN>::add(apart, a + 2 * step, b + 2 * step, step > 0);
      else
        WarpgroupProduct<kOperand, kN>::add(sums, a + 2 * step, b + 2 * step, 1);
    }
    products_commit();
    products_wait<0>();
    if constexpr (kApart)
      hold(apart);
    else
      hold(sums);
    if (threadIdx.x % 128 == 0) barrier_arrive(shared.empty + place.stage);
    if constexpr (kApart)
#pragma unroll
      for (int i = 0; i < kN / 2; ++i) sums[i] += apart[i];
  }
}

// Scales for write_slice(), loaded before the products, by all consumers: those of the weight, which are
// nobody's result, while earlier kernels run.
template <int kN>
__device__ void load_weight_scales(const SlicedTask& task, SlicedShared<kN>& shared) {
  const int column = threadIdx.x, width = task.gated ? kN / 2 : kN;
  if (column >= kN) return;
  const int row = static_cast<int>(blockIdx.x) * width + column % width;
  shared.weight_scales[column] = task.weight_scales && row < task.half_rows
                                     ? task.weight_scales[column / width * task.half_rows + row]
                                     : 1;
}
template <int kN>
__device__ void load_in_scales(const SlicedTask& task, SlicedShared<kN>& shared) {
  if (static_cast<int>(threadIdx.x) < task.rows)
    shared.in_scales[threadIdx.x] = task.in_scales ? task.in_scales[threadIdx.x] : 1;
}

// Joins the warpgroups' sums, scales and writes them. The ring, which has been read, holds all sums.
template <int kN, class Sum>
__device__ void write_slice(const SlicedTask& task, const SlicedShared<kN>& shared, const Sum (&mine)[kN / 2],
                            Sum* all) {
  using L = SlicedLayout<kN>;
  const int lane = threadIdx.x % 32, group = threadIdx.x / 128;
  const int first_row = threadIdx.x / 32 % 4 * 16 + lane / 4;
  sync_threads_of(1, L::kConsumers);  // of the ring, by all
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + half * 8;
    if (row >= task.row_box) continue;
    Sum* to = all + (group * task.row_box + row) * L::kSumStride + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < kN / 8; ++i) {
      to[i * 8] = mine[4 * i + 2 * half];
      to[i * 8 + 1] = mine[4 * i + 2 * half + 1];
    }
  }
  sync_threads_of(1, L::kConsumers);
  const int width = task.gated ? kN / 2 : kN;
  // `weight_row` counts through both halves.
  const auto value_of = [&](int row, int column, int weight_row) {
    Sum sum = 0;
#pragma unroll
    for (int g = 0; g < L::kGroups; ++g) sum += all[(g * task.row_box + row) * L::kSumStride + column];
    float value = static_cast<float>(sum);
    value *= shared.weight_scales[column];
    value *= shared.in_scales[row];
    if (task.bias) value += task.bias[weight_row];
    return value;
  };
  for (int i = threadIdx.x; i < task.rows * width; i += L::kConsumers) {
    const int row = i / width, column = i % width;
    const int weight_row = static_cast<int>(blockIdx.x) * width + column;
    if (weight_row >= task.half_rows) continue;
    float value = value_of(row, column, weight_row);
    if (task.gated)
      value = value / (1.f + expf(-value)) * value_of(row, column + width, task.half_rows + weight_row);
    const std::int64_t at = row * task.out_stride + weight_row;
    if (task.out.type == Float::kBf16)
      store_value(static_cast<bf16*>(task.out.data) + at, value);
    else
      store_value(static_cast<float*>(task.out.data) + at, value);
  }
}

template <Operand kOperand, int kN>
__global__ void __launch_bounds__(SlicedLayout<kN>::kThreads, 1)
    sliced_kernel(const __grid_constant__ SlicedTask task) {
  using L = SlicedLayout<kN>;
  using Sum = std::conditional_t<kOperand == Operand::kInt8, int, float>;
  extern __shared__ char memory[];
  __shared__ SlicedShared<kN> shared;
  char* ring = memory + (1024 - shared_address(memory) % 1024) % 1024;

  let_next_kernel_begin();
  if (threadIdx.x >= L::kConsumers) {
    SliceFeeder<kN> feeder(task, ring, shared, threadIdx.x / 32 % kFeeders);
    if (elected()) feeder.begin();
    __syncthreads();
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(L::kProducerRegisters));
    if (elected()) feeder.run();
  } else {
    __syncthreads();
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(L::kConsumerRegisters));
    load_weight_scales(task, shared);
    wait_for_earlier_kernels();
    load_in_scales(task, shared);
    Sum sums[kN / 2];
#pragma unroll
    for (int i = 0; i < kN / 2; ++i) sums[i] = 0;
    add_slices<kOperand, kN>(task, ring, shared, sums);
    write_slice<kN>(task, shared, sums, reinterpret_cast<Sum*>(ring));
  }
}

// Fills in what depends on the kernel and starts it.
template <Operand kOperand, int kN>
void start_sliced_of(SlicedTask task, cudaStream_t stream) {
  using L = SlicedLayout<kN>;
  task.stage_bytes = task.row_box * 128 + kN * 128;
  const int beyond = std::max(0, kReadBeyond - task.stage_bytes);
  // A stage belongs to one feeder and one warpgroup, so that each sees all of its phases.
  task.stages = std::min(kMostSlicedStages, (kSlicedBytes - beyond) / task.stage_bytes) / kFeeders * kFeeders;
  const int window = task.chunks <= task.stages ? kFittingWindowBytes : kWindowBytes;
  task.apart = std::max(1, window / (kN * 128));
  const int ring = task.stages * task.stage_bytes + beyond;
  const auto kernel = sliced_kernel<kOperand, kN>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSlicedBytes + 1024);
  (void)allowed;  // the launch fails if this did
  launch(kernel, static_cast<unsigned>(task.tiles), L::kThreads,
         static_cast<std::size_t>(std::max(ring, L::sum_bytes(task.row_box)) + 1024), stream, task);
}

template <Operand kOperand>
void start_sliced(const SlicedTask& task, int tile_rows, cudaStream_t stream) {
  switch (tile_rows) {
    case 16: return start_sliced_of<kOperand, 16>(task, stream);
    case 32: return start_sliced_of<kOperand, 32>(task, stream);
    case 48: return start_sliced_of<kOperand, 48>(task, stream);
    case 64: return start_sliced_of<kOperand, 64>(task, stream);
    case 96: return start_sliced_of<kOperand, 96>(task, stream);
    case 128: return start_sliced_of<kOperand, 128>(task, stream);
    default: return start_sliced_of<kOperand, 192>(task, stream);
  }
}

// One .cu file each: they are compiled beside each other.
void start_sliced_bf16(const SlicedTask& task, int tile_rows, cudaStream_t stream);
void start_sliced_e4m3(const SlicedTask& task, int tile_rows, cudaStream_t stream);
void start_sliced_int8(const SlicedTask& task, int tile_rows, cudaStream_t stream);

}  // namespace bise::cuda
