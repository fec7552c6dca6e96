// The kernel behind streamed_linear.h, see streamed_linear.cu, and its launch. streamed_task.cuh has what
// blocks do, streamed_feed.cuh brings weights and inputs, streamed_products.cuh multiplies them,
// streamed_parts.cuh adds up the sums of blocks that share a tile, streamed_output.cuh writes them.
#pragma once

#include <algorithm>

#include "backend/cuda/launch.cuh"
#include "backend/cuda/streamed_feed.cuh"
#include "backend/cuda/streamed_output.cuh"
#include "backend/cuda/streamed_parts.cuh"
#include "backend/cuda/streamed_products.cuh"

namespace bise::cuda {

constexpr int kRingBytes = 227 * 1024 - 2048;  // beside static memory and the alignment

// Brings the weight's scales that a block needs at its end into the second-level cache. They are nobody's
// result.
template <class L>
__device__ inline void fetch_scales(const StreamedTask& task, int first, int last) {
  constexpr int kLine = 128 / sizeof(float);
  if (!task.weight_scales) return;
  const int items = task.chunks * task.row_tiles;
  const int tile_columns = task.gated ? L::kTileRows / 2 : L::kTileRows;
  const int end = min(task.half_rows, ((last - 1) / items + 1) * tile_columns);
  for (int row = first / items * tile_columns + threadIdx.x * kLine; row < end; row += L::kConsumers * kLine)
    for (int half = 0; half <= task.gated; ++half)
      asm volatile("prefetch.global.L2 [%0];" ::"l"(task.weight_scales + half * task.half_rows + row));
}

// kSteps: of the product's 16 columns that share a group of int4 panels; 0 for other operands.
template <Operand kOperand, int kSteps, int kN>
__global__ void __launch_bounds__(StreamedLayout<(kSteps > 0), kN>::kThreads, 1)
    streamed_kernel(const __grid_constant__ StreamedTask task) {
  constexpr bool kPanels = kSteps > 0;
  using L = StreamedLayout<kPanels, kN>;
  using Sum = std::conditional_t<kOperand == Operand::kInt8, int, float>;
  extern __shared__ char memory[];
  __shared__ Barriers barriers;
  char* ring = memory + (1024 - shared_address(memory) % 1024) % 1024;
  auto* exchange = reinterpret_cast<float*>(ring + task.stages * task.stage_bytes);

  let_next_kernel_begin();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < task.stages; ++stage) {
      barrier_init(barriers.full + stage, 1);
      barrier_init(barriers.empty + stage, L::kArrivals);
    }
    barrier_init_visible();
  }
  __syncthreads();
  const int first = first_item(blockIdx.x, task), last = first_item(blockIdx.x + 1, task);

  if (threadIdx.x >= L::kConsumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(L::kProducerRegisters));
    if (threadIdx.x == L::kConsumers) feed<kPanels, kN>(task, ring, barriers, first, last);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(L::kConsumerRegisters));
    fetch_scales<L>(task, first, last);
    wait_for_earlier_kernels();
    RingPlace place;
    for (int item = first; item < last;) {
      const int tile = item / task.chunks;
      const int end = min(last, (tile + 1) * task.chunks);
      const bool whole = end - item == task.chunks;
      Sum sums[kN / 2];
#pragma unroll
      for (int i = 0; i < kN / 2; ++i) sums[i] = 0;
      if constexpr (kPanels && kN > 64) {
        const PanelRing panels{ring, task.stage_bytes, task.stages, barriers.full};
        const bool arrives = threadIdx.x % 32 == 0;
        const auto release = [&](int stage) {
          if (arrives) barrier_arrive(barriers.empty + stage);
        };
        const auto add = [&](auto bf16_scales) {
          add_scaled_panels<kN, kSteps, decltype(bf16_scales)::value>(task.panels, panels, place, end - item,
                                                                      sums, release);
        };
        if (has_bf16_scales(task.panels))
          add(std::true_type());
        else
          add(std::false_type());
      } else if constexpr (kPanels)
        add_panels<kN, kSteps>(task, ring, barriers, place, end - item, sums);
      else
        add_products<kOperand, kN>(task, ring, barriers, place, end - item, sums);
      item = end;
      if (!whole) {
        const Chain chain = chain_of(tile, task);
        const bool joins = end == last;
        if (!joins || chain.joining > 1) leave_part<L>(sums, tile, chain, task);
        if (joins && chain.joining > 1) join_parts<L, Sum>(tile, chain, task);
        if (!joins || chain.joining > 1) continue;
        add_other_part<L>(sums, tile, chain, task);
      }
      if (task.gated)
        write_gated<L>(sums, tile, task, exchange);
      else
        write_tile<L>(sums, tile, task);
    }
  }
}

// Fills in what depends on the kernel and starts it.
template <Operand kOperand, int kSteps, int kN>
void start_streamed(StreamedTask task, cudaStream_t stream) {
  constexpr bool kPanels = kSteps > 0;
  using L = StreamedLayout<kPanels, kN>;
  const int weight_bytes = L::kGroups * (kPanels ? task.panels.block_bytes : 64 * 128);
  task.stage_bytes = (L::kInputBytes + weight_bytes + 1023) / 1024 * 1024;
  const int exchange = task.gated ? L::kExchangeBytes : 0;
  task.stages = std::min(kMostStages, (kRingBytes - exchange) / task.stage_bytes);
  const int tile_columns = task.gated ? L::kTileRows / 2 : L::kTileRows;
  task.tiles = (task.half_rows + tile_columns - 1) / tile_columns;
  task.row_tiles = (task.rows + kN - 1) / kN;
  task.blocks = std::min(streamed_blocks(), task.tiles * task.row_tiles * task.chunks);
  const int items = task.tiles * task.row_tiles * task.chunks;
  task.items_per_block = items / task.blocks;
  task.longer_blocks = items % task.blocks;
  const auto kernel = streamed_kernel<kOperand, kSteps, kN>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kRingBytes + 1024);
  (void)allowed;  // the launch fails if this did
  launch(kernel, static_cast<unsigned>(task.blocks), L::kThreads,
         static_cast<std::size_t>(task.stages * task.stage_bytes + exchange + 1024), stream, task);
}

template <Operand kOperand, int kSteps>
void start_streamed(const StreamedTask& task, cudaStream_t stream) {
  switch (input_tile_rows(task.rows)) {
    case 8: return start_streamed<kOperand, kSteps, 8>(task, stream);
    case 16: return start_streamed<kOperand, kSteps, 16>(task, stream);
    case 32: return start_streamed<kOperand, kSteps, 32>(task, stream);
    case 64: return start_streamed<kOperand, kSteps, 64>(task, stream);
    default: return start_streamed<kOperand, kSteps, 128>(task, stream);
  }
}

// One .cu file each: they are compiled beside each other.
void start_streamed_bf16(const StreamedTask& task, cudaStream_t stream);
void start_streamed_e4m3(const StreamedTask& task, cudaStream_t stream);
void start_streamed_int8(const StreamedTask& task, cudaStream_t stream);
void start_streamed_int4(const StreamedTask& task, cudaStream_t stream);

}  // namespace bise::cuda
