// The kernel behind sliced_int4.h. A block takes a tile of the weight's rows and one chain's range of its
// columns. The copy engine brings the panels, as they lie, into a ring of shared memory, as many as fit while
// the kernels that make the inputs still run, and the input's columns beside them.
//
// Codes less zero points, exact in bf16, are operand A of mma.sync (the weight's rows are the product's), the
// input's rows operand B; each of eight warps has two or three units of 16 rows of the weight. The sums of at
// most 64 columns, which lie in one group, are scaled and added in the order of the columns. The blocks of a
// tile leave their sums in the workspace, wait for each other, and add a share each in the order of chains.
#pragma once

#include "backend/cuda/launch.cuh"
#include "backend/cuda/panel_codes.cuh"
#include "backend/cuda/sliced_int4_join.cuh"
#include "backend/cuda/sliced_int4_task.cuh"

namespace bise::cuda {

constexpr int kInt4Threads = kInt4Consumers + 32;

struct SlicedInt4Barriers {
  std::uint64_t full[kMostInt4Stages], empty[kMostInt4Stages];
};

// One thread. The weight is nobody's result: only inputs wait for earlier kernels.
__device__ inline void feed_int4(const SlicedInt4Task& task, char* ring, SlicedInt4Barriers& barriers,
                                 const Int4Work& work) {
  prefetch_map(&task.input_tiles);
  const std::uint64_t once = read_once_policy(), often = read_often_policy();
  const auto block_bytes = static_cast<std::uint32_t>(task.panels.block_bytes);
  const int halves = task.gated ? 2 : 1, of_half = task.row_blocks / halves, first = work.tile * of_half;
  const int there = min(of_half, task.half_blocks - first), input_bytes = task.row_box * kInt4Columns * 2;
  const std::int64_t row_bytes = std::int64_t{task.chunks} * task.panels.block_bytes;
  const char* panels = static_cast<const char*>(task.panels.data) + first * row_bytes;
  const auto fetch_weights = [&](int chunk, int stage) {
    std::uint64_t* full = barriers.full + stage;
    barrier_expect_bytes(full, static_cast<std::uint32_t>(input_bytes) +
                                   static_cast<std::uint32_t>(halves * there) * block_bytes);
    for (int half = 0; half < halves; ++half) {
      char* to = ring + stage * task.stage_bytes + input_bytes + half * of_half * task.panels.block_bytes;
      const char* from =
          panels + half * task.half_blocks * row_bytes + std::int64_t{chunk} * task.panels.block_bytes;
      for (int block = 0; block < there; ++block, to += block_bytes, from += row_bytes)
        copy_bytes(to, from, block_bytes, full, once);
    }
  };
  const auto fetch_inputs = [&](int chunk, int stage) {
    char* to = ring + stage * task.stage_bytes;
    for (int half = 0; half < 2; ++half)
      copy_tile(to + half * task.row_box * 128, &task.input_tiles, chunk * kInt4Columns + half * 64, 0,
                barriers.full + stage, often);
  };
  const int ahead = min(task.stages, work.last - work.first);
  for (int i = 0; i < ahead; ++i) fetch_weights(work.first + i, i);
  wait_for_earlier_kernels();
  for (int i = 0; i < ahead; ++i) fetch_inputs(work.first + i, i);
  RingPlace place;
  for (int chunk = work.first + ahead; chunk < work.last; ++chunk, place.advance(task.stages)) {
    barrier_wait(barriers.empty + place.stage, place.parity);
    fetch_weights(chunk, place.stage);
    fetch_inputs(chunk, place.stage);
  }
}

__device__ inline void multiply_bf16(float (&sums)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                     std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 x 8 matrices of 16-bit values, whose rows the lanes point at: a thread gets two values of each.
__device__ inline void load_matrices(const void* row, std::uint32_t (&pairs)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(pairs[0]), "=r"(pairs[1]), "=r"(pairs[2]), "=r"(pairs[3])
               : "r"(shared_address(row)));
}

// What is known of the panels when a kernel is compiled: usual ones have groups of 64 columns or more, scales
// of bf16 and no zero points, small ones groups of 32.
enum class Panels { kUsual, kAny, kSmall };

// Adds the products of 64 columns, half `half` of the stage's chunk. inputs[part] is where the lane's row of
// 32 of these columns begins, in the first tile of the input's rows.
template <int kUnits, int kTiles, Panels kPanels>
__device__ inline void add_half(const SlicedInt4Task& task, const char* stage, const char* const (&inputs)[2],
                                int half, const UnitPlace (&units)[kUnits],
                                float (&sums)[kUnits][kTiles][4]) {
  constexpr int kSteps = kPanels == Panels::kSmall ? 2 : 4;  // of 16 columns that lie in one group
  std::uint32_t values[kTiles][2][4];
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
    for (int part = 0; part < 2; ++part) load_matrices(inputs[part] + tile * 8 * 128, values[tile][part]);
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const char* block = stage + units[u].block;
    const int lane = threadIdx.x % 32;
    const uint4 raw = *reinterpret_cast<const uint4*>(
        block + (half * 4 + units[u].row / kUnitRows) * kUnitBytes + lane * 16);
    const std::uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
    for (int begin = 0; begin < 4; begin += kSteps) {
      int at = units[u].row;
      std::uint32_t low_zero = 0x43084308, high_zero = 0x43084308;  // 136
      float low_scale, high_scale;
      const char* scales = block + kPanelCodeBytes;
      if constexpr (kPanels == Panels::kUsual) {
        if (task.panels.group_columns < kInt4Columns) at += half * 64;
        low_scale = load_value(reinterpret_cast<const bf16*>(scales) + at);
        high_scale = load_value(reinterpret_cast<const bf16*>(scales) + at + 8);
      } else {
        if (task.panels.group_columns < kInt4Columns)
          at += (kPanels == Panels::kSmall ? half * 2 + begin / 2 : half) * 64;
        low_scale = panel_scale(scales, at, task.panels.scale);
        high_scale = panel_scale(scales, at + 8, task.panels.scale);
        if (task.panels.has_zeros) {
          const auto* zeros = reinterpret_cast<const std::int8_t*>(block + task.panels.zero_offset) + at;
          low_zero += static_cast<std::uint32_t>(zeros[0]) * 0x10001u;
          high_zero += static_cast<std::uint32_t>(zeros[8]) * 0x10001u;
        }
      }
      float products[kTiles][4] = {};
#pragma unroll
      for (int step = begin; step < begin + kSteps; ++step) {
        std::uint32_t pairs[4];
        expand_codes(words[step], low_zero, high_zero, pairs);
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile)
          multiply_bf16(products[tile], pairs, values[tile][step / 2][step % 2 * 2],
                        values[tile][step / 2][step % 2 * 2 + 1]);
      }
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sums[u][tile][i] = __fmaf_rn(products[tile][i], i < 2 ? low_scale : high_scale, sums[u][tile][i]);
    }
  }
}

template <int kUnits, int kTiles, Panels kPanels>
__device__ void add_chunks(const SlicedInt4Task& task, const char* ring, int chunks,
                           SlicedInt4Barriers& barriers, float (&sums)[kUnits][kTiles][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, input_bytes = task.row_box * kInt4Columns * 2;
  UnitPlace units[kUnits];
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int unit = warp * kUnits + u;
    units[u] = {input_bytes + unit / 4 * task.panels.block_bytes, unit % 4 * kUnitRows + lane / 4};
  }
  RingPlace place;
  for (; chunks > 0; --chunks, place.advance(task.stages)) {
    barrier_wait(barriers.full + place.stage, place.parity);
    const char* stage = ring + place.stage * task.stage_bytes;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const char* row = stage + (half * task.row_box + lane % 8) * 128;
      const char* inputs[2] = {row + (((lane / 8) ^ (lane % 8)) << 4),
                               row + (((lane / 8 + 4) ^ (lane % 8)) << 4)};
      add_half<kUnits, kTiles, kPanels>(task, stage, inputs, half, units, sums);
    }
    __syncwarp();
    if (lane == 0) barrier_arrive(barriers.empty + place.stage);
  }
}

// The warp's sums, in `all` [rows, row_blocks * 64].
template <int kUnits, int kTiles>
__device__ inline void leave_sums(const SlicedInt4Task& task, const float (&sums)[kUnits][kTiles][4],
                                  float* all) {
  const int lane = threadIdx.x % 32, tile_rows = task.row_blocks * 64;
  float* to = all + threadIdx.x / 32 * kUnits * kUnitRows + lane / 4;
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = tile * 8 + lane % 4 * 2 + i % 2;
      if (row >= task.rows) continue;
#pragma unroll
      for (int u = 0; u < kUnits; ++u)
        __stcg(to + row * tile_rows + u * kUnitRows + i / 2 * 8, sums[u][tile][i]);
    }
}

template <int kUnits, int kTiles, Panels kPanels>
__global__ void __launch_bounds__(kInt4Threads, kTiles == 1 ? 2 : 1)
    sliced_int4_kernel(const __grid_constant__ SlicedInt4Task task) {
  extern __shared__ char memory[];
  __shared__ SlicedInt4Barriers barriers;
  char* ring = memory + (kInt4Alignment - shared_address(memory) % kInt4Alignment) % kInt4Alignment;

  let_next_kernel_begin();
  const Int4Work work = work_of(task);
  if (work.tile >= task.tiles) return wait_for_earlier_kernels();  // keeps a place, see sliced_int4.cu
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < task.stages; ++stage) {
      barrier_init(barriers.full + stage, 1);
      barrier_init(barriers.empty + stage, kInt4Warps);
    }
    barrier_init_visible();
  }
  __syncthreads();

  if (threadIdx.x >= kInt4Consumers) {
    if (elected()) feed_int4(task, ring, barriers, work);
    return;
  }
  wait_for_earlier_kernels();
  float sums[kUnits][kTiles][4] = {};
  add_chunks<kUnits, kTiles, kPanels>(task, ring, work.last - work.first, barriers, sums);
  const int part = task.rows * task.row_blocks * 64;
  float* all = task.partial + std::int64_t{work.tile} * task.chains * part;
  leave_sums(task, sums, all + work.chain * part);
  join_blocks(task, work.tile);
  write_share(task, work, all);
}

template <int kUnits, int kTiles, Panels kPanels>
void start_sliced_int4(const SlicedInt4Task& task, int blocks, int bytes, cudaStream_t stream) {
  const auto kernel = sliced_int4_kernel<kUnits, kTiles, kPanels>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 225 * 1024);
  (void)allowed;  // the launch fails if this did
  launch(kernel, static_cast<unsigned>(blocks), kInt4Threads, static_cast<std::size_t>(bytes), stream, task);
}

template <int kUnits, int kTiles>
void start_sliced_int4(const SlicedInt4Task& task, int blocks, int bytes, cudaStream_t stream) {
  if (task.panels.group_columns == 32)
    return start_sliced_int4<kUnits, kTiles, Panels::kSmall>(task, blocks, bytes, stream);
  if (task.panels.scale == PanelScale::kBf16 && !task.panels.has_zeros)
    return start_sliced_int4<kUnits, kTiles, Panels::kUsual>(task, blocks, bytes, stream);
  start_sliced_int4<kUnits, kTiles, Panels::kAny>(task, blocks, bytes, stream);
}

template <int kTiles>
void start_sliced_int4(const SlicedInt4Task& task, int blocks, int bytes, cudaStream_t stream) {
  if (task.row_blocks == 6) return start_sliced_int4<3, kTiles>(task, blocks, bytes, stream);
  start_sliced_int4<2, kTiles>(task, blocks, bytes, stream);
}

}  // namespace bise::cuda
