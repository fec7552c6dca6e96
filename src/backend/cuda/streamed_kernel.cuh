// The kernel behind streamed_linear.h; see streamed_linear.cu.
#pragma once

#include <algorithm>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/int4_panels.h"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/panel_codes.cuh"
#include "backend/cuda/streamed_linear.h"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {

constexpr int kMostStages = 24;
constexpr int kRingBytes = 227 * 1024 - 2048;  // beside static memory and the alignment

struct StreamedTask {
  CUtensorMap weight_tiles, input_tiles;
  Int4Panels panels;                   // instead of weight_tiles
  int value_bytes;                     // of other operands
  int rows;                            // of the input and the output
  int tiles, row_tiles, chunks;        // of the weight, of the input, and of a row's bytes
  int blocks;                          // at most the work items, so that each has one
  int items_per_block, longer_blocks;  // the first so many have one more
  int half_rows;                       // of the weight; half of them where it joins gate and up
  int gated;
  int stages, stage_bytes;
  const float *in_scales, *weight_scales, *bias;
  Values out;
  std::int64_t out_stride;
  void* partial;  // [blocks, 2, kMostPartialSums]
  int* arrivals;  // [tiles * row_tiles][2]: parts that are there, blocks that have joined them
};

// kGroups warpgroups multiply, each 64 rows of the weight's tile; one more feeds them. A chunk is 128 bytes
// of a weight's and an input's row, or 128 columns of int4 panels.
template <bool kPanels, int kN>
struct StreamedLayout {
  static constexpr int kGroups = kPanels && kN <= 64 ? 4 : 2;
  static constexpr int kConsumers = kGroups * 128, kThreads = kConsumers + 128;
  static constexpr int kTileRows = kGroups * 64;
  static constexpr int kInputBoxBytes = kN * 128, kInputBytes = kInputBoxBytes * (kPanels ? 2 : 1);
  static constexpr int kSums = kN / 2;  // of a thread
  static_assert(kSums * kConsumers <= kMostPartialSums);
  // Inputs of panels are bf16, without scales.
  static constexpr bool kHasInputScales = !kPanels;
  // Of a multiprocessor's 65536 registers.
  static constexpr int kConsumerRegisters = kGroups == 4 ? 112 : 232;
  static constexpr int kProducerRegisters = kGroups == 4 ? 32 : 40;
  static constexpr int kExchangeBytes = kConsumers / 2 * kSums * 4;  // gated: of up's sums
};

// The first work item of a block.
__device__ inline int first_item(int block, const StreamedTask& task) {
  return block * task.items_per_block + min(block, task.longer_blocks);
}

// The block whose piece holds `item`.
__device__ inline int block_of(int item, const StreamedTask& task) {
  const int longer_items = task.longer_blocks * (task.items_per_block + 1);
  if (item < longer_items) return item / (task.items_per_block + 1);
  return task.longer_blocks + (item - longer_items) / task.items_per_block;
}

// The first weight row, within its half, of a warpgroup's 64 in a tile of the weight.
template <class L>
__device__ inline int group_row(int weight_tile, int group, const StreamedTask& task) {
  if (task.gated) return (weight_tile * (L::kGroups / 2) + group % (L::kGroups / 2)) * 64;
  return (weight_tile * L::kGroups + group) * 64;
}
template <class L>
__device__ inline int half_of(int group, const StreamedTask& task) {
  return task.gated && group >= L::kGroups / 2;
}

__device__ inline void store_out(const StreamedTask& task, int row, int column, float value) {
  const std::int64_t at = row * task.out_stride + column;
  if (task.out.type == Float::kBf16)
    store_value(static_cast<bf16*>(task.out.data) + at, value);
  else
    store_value(static_cast<float*>(task.out.data) + at, value);
}

// Where a thread's sum stands in the output; column counts within the half.
struct Position {
  int row, column;
  bool is_there;
};
template <class L>
__device__ inline Position position_of(int sum, int thread, int tile, const StreamedTask& task) {
  const int column = group_row<L>(tile / task.row_tiles, thread / 128, task) + thread / 32 % 4 * 16 +
                     thread % 32 / 4 + sum / 2 % 2 * 8;
  const int row = tile % task.row_tiles * L::kSums * 2 + sum / 4 * 8 + thread % 4 * 2 + sum % 2;
  return {row, column, column < task.half_rows && row < task.rows};
}

// `weight_row` counts through both halves.
template <class Sum>
__device__ inline float scaled(Sum sum, int row, int weight_row, const StreamedTask& task) {
  float value = static_cast<float>(sum);
  if (task.weight_scales) value *= task.weight_scales[weight_row];
  if (task.in_scales) value *= task.in_scales[row];
  if (task.bias) value += task.bias[weight_row];
  return value;
}

__device__ inline float gated(float gate, float up) {
  return gate / (1.f + expf(-gate)) * up;
}

// The scales and biases of a thread's sums, all loaded before the first result is stored: sum i is scaled
// with weight[i / 2 % 2] and in[i / 4 * 2 + i % 2].
template <class L>
struct Scales {
  float weight[2], bias[2], in[L::kHasInputScales ? L::kSums / 2 : 1];
};
// `first_row` of the weight's half.
template <class L>
__device__ inline Scales<L> load_scales(int tile, int first_row, const StreamedTask& task) {
  Scales<L> scales;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const Position at = position_of<L>(2 * k, threadIdx.x, tile, task);
    const int row = first_row + min(at.column, task.half_rows - 1);
    scales.weight[k] = task.weight_scales ? task.weight_scales[row] : 1.f;
    scales.bias[k] = task.bias ? task.bias[row] : 0.f;
  }
  if constexpr (L::kHasInputScales)
#pragma unroll
    for (int k = 0; k < L::kSums / 2; ++k) {
      const Position at = position_of<L>(k / 2 * 4 + k % 2, threadIdx.x, tile, task);
      scales.in[k] = task.in_scales ? task.in_scales[min(at.row, task.rows - 1)] : 1.f;
    }
  return scales;
}
template <class L, class Sum>
__device__ inline float scaled(Sum sum, int i, const Scales<L>& scales) {
  float value = static_cast<float>(sum) * scales.weight[i / 2 % 2];
  if constexpr (L::kHasInputScales) value *= scales.in[i / 4 * 2 + i % 2];
  return value + scales.bias[i / 2 % 2];
}

template <class L, class Sum>
__device__ void write_tile(const Sum (&sums)[L::kSums], int tile, const StreamedTask& task) {
  const Scales<L> scales = load_scales<L>(tile, 0, task);
#pragma unroll
  for (int i = 0; i < L::kSums; ++i) {
    const Position at = position_of<L>(i, threadIdx.x, tile, task);
    if (at.is_there) store_out(task, at.row, at.column, scaled<L>(sums[i], i, scales));
  }
}

// The warpgroups with up's rows hand their values to those with gate's.
template <class L, class Sum>
__device__ void write_gated(const Sum (&sums)[L::kSums], int tile, const StreamedTask& task,
                            float* exchange) {
  constexpr int kHalf = L::kConsumers / 2;
  float* mine = exchange + threadIdx.x % kHalf;
  const bool is_up = threadIdx.x >= kHalf;
  const Scales<L> scales = load_scales<L>(tile, is_up ? task.half_rows : 0, task);
  if (is_up)
#pragma unroll
    for (int i = 0; i < L::kSums; ++i) mine[i * kHalf] = scaled<L>(sums[i], i, scales);
  sync_threads_of(1, L::kConsumers);
  if (!is_up)
#pragma unroll
    for (int i = 0; i < L::kSums; ++i) {
      const Position at = position_of<L>(i, threadIdx.x, tile, task);
      const float value = gated(scaled<L>(sums[i], i, scales), mine[i * kHalf]);
      if (at.is_there) store_out(task, at.row, at.column, value);
    }
  sync_threads_of(1, L::kConsumers);
}

// The blocks that share a tile. All but a last one that has further tiles join the parts, each a share of
// them, once they have nothing else to do.
struct Chain {
  int first, parts, joining;
};
__device__ inline Chain chain_of(int tile, const StreamedTask& task) {
  const int end = (tile + 1) * task.chunks, first = block_of(tile * task.chunks, task);
  const int last = block_of(end - 1, task), parts = last - first + 1;
  return {first, parts, parts - (first_item(last + 1, task) > end)};
}

// Where the `i`-th block of a chain leaves its sums.
template <class Sum>
__device__ inline Sum* part_of(const Chain& chain, int i, const StreamedTask& task) {
  const int slot = 2 * (chain.first + i) + (i < chain.joining);
  return static_cast<Sum*>(task.partial) + static_cast<std::int64_t>(slot) * kMostPartialSums;
}

__device__ inline void wait_for_parts(const int* arrivals, int parts) {
  int arrived;
  do {
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(arrived) : "l"(arrivals) : "memory");
  } while (arrived < parts);
}

template <class L, class Sum>
__device__ void leave_part(const Sum (&sums)[L::kSums], int tile, const Chain& chain,
                           const StreamedTask& task) {
  Sum* mine = part_of<Sum>(chain, blockIdx.x - chain.first, task) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < L::kSums; ++i) __stcg(mine + i * L::kConsumers, sums[i]);
  sync_threads_of(1, L::kConsumers);
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(task.arrivals + 2 * tile, 1);
  }
}

// Writes this block's share of a tile whose parts are all there, added in the order of their columns.
template <class L, class Sum, bool kGated>
__device__ void join_share(int tile, const Chain& chain, const StreamedTask& task) {
  constexpr int kWidth = kGated ? L::kConsumers / 2 : L::kConsumers, kAll = L::kSums * kWidth;
  // As many loads under way together as registers allow: of several sums and several parts.
  constexpr int kTogether = L::kSums <= 8 ? L::kSums / 4 : L::kSums <= 16 ? 4 : 8;
  constexpr int kParts = kTogether <= 2 ? 8 : kGated ? 2 : 4;
  const int share = blockIdx.x - chain.first, end = kAll * (share + 1) / chain.joining;
  for (int begin = kAll * share / chain.joining + threadIdx.x; begin < end;
       begin += kTogether * L::kConsumers) {
    Sum sums[kTogether] = {}, up_sums[kTogether] = {};
#pragma unroll kParts
    for (int part = 0; part < chain.parts; ++part) {
      const Sum* from = part_of<Sum>(chain, part, task);
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        const unsigned e = min(begin + k * L::kConsumers, kAll - 1);
        const unsigned at = e / kWidth * L::kConsumers + e % kWidth;
        sums[k] += __ldcg(from + at);
        if constexpr (kGated) up_sums[k] += __ldcg(from + at + kWidth);
      }
    }
    float values[kTogether];
    Position at[kTogether];
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      const unsigned e = begin + k * L::kConsumers;
      at[k] = position_of<L>(e / kWidth, e % kWidth, tile, task);
      at[k].is_there = at[k].is_there && static_cast<int>(e) < end;
      values[k] = at[k].is_there ? scaled(sums[k], at[k].row, at[k].column, task) : 0.f;
      if constexpr (kGated)
        if (at[k].is_there)
          values[k] = gated(values[k], scaled(up_sums[k], at[k].row, task.half_rows + at[k].column, task));
    }
#pragma unroll
    for (int k = 0; k < kTogether; ++k)
      if (at[k].is_there) store_out(task, at[k].row, at[k].column, values[k]);
  }
}

// Waits for the parts of the chain, whose blocks all run at once.
template <class L, class Sum>
__device__ void join_parts(int tile, const Chain& chain, const StreamedTask& task) {
  int* arrivals = task.arrivals + 2 * tile;
  if (threadIdx.x == 0) wait_for_parts(arrivals, chain.parts);
  sync_threads_of(1, L::kConsumers);
  if (task.gated)
    join_share<L, Sum, true>(tile, chain, task);
  else
    join_share<L, Sum, false>(tile, chain, task);
  if (threadIdx.x == 0 && atomicAdd(arrivals + 1, 1) == chain.joining - 1) arrivals[0] = arrivals[1] = 0;
}

// The one block that joins a chain of two keeps its own sums.
template <class L, class Sum>
__device__ void add_other_part(Sum (&sums)[L::kSums], int tile, const Chain& chain,
                               const StreamedTask& task) {
  if (threadIdx.x == 0) {
    wait_for_parts(task.arrivals + 2 * tile, 1);
    task.arrivals[2 * tile] = 0;
  }
  sync_threads_of(1, L::kConsumers);
  const Sum* other = part_of<Sum>(chain, 1, task) + threadIdx.x;
#pragma unroll
  for (int i = 0; i < L::kSums; ++i) sums[i] += __ldcg(other + i * L::kConsumers);
}

struct Barriers {
  std::uint64_t full[kMostStages], empty[kMostStages];
};

// One thread. Weights that fit the ring are fetched while earlier kernels, which make the inputs, still run.
template <bool kPanels, int kN>
__device__ void feed(const StreamedTask& task, char* ring, Barriers& barriers, int first, int last) {
  using L = StreamedLayout<kPanels, kN>;
  prefetch_map(&task.input_tiles);
  const std::uint64_t often = read_often_policy();
  const std::uint64_t weight_policy = task.row_tiles == 1 ? read_once_policy() : often;
  const int columns = kPanels ? 64 : 128 / task.value_bytes;  // of a box
  const auto fetch_weights = [&](int item, int stage) {
    std::uint64_t* full = barriers.full + stage;
    const int weight_tile = item / task.chunks / task.row_tiles, chunk = item % task.chunks;
    char* to = ring + stage * task.stage_bytes + L::kInputBytes;
    if constexpr (kPanels) {
      const int half_blocks = task.half_rows / 64 + (task.half_rows % 64 != 0);
      int blocks = 0;
#pragma unroll
      for (int group = 0; group < L::kGroups; ++group)
        blocks += group_row<L>(weight_tile, group, task) / 64 < half_blocks;
      const auto block_bytes = static_cast<std::uint32_t>(task.panels.block_bytes);
      barrier_expect_bytes(full, L::kInputBytes + static_cast<std::uint32_t>(blocks) * block_bytes);
#pragma unroll
      for (int group = 0; group < L::kGroups; ++group) {
        const int block = group_row<L>(weight_tile, group, task) / 64;
        if (block >= half_blocks) continue;
        const std::int64_t at =
            static_cast<std::int64_t>(half_of<L>(group, task) * half_blocks + block) * task.chunks + chunk;
        copy_bytes(to + group * block_bytes, static_cast<const char*>(task.panels.data) + at * block_bytes,
                   block_bytes, full, weight_policy);
      }
    } else {
      barrier_expect_bytes(full, L::kInputBytes + L::kGroups * 64 * 128);
#pragma unroll
      for (int group = 0; group < L::kGroups; ++group)
        copy_tile(to + group * 64 * 128, &task.weight_tiles, chunk * columns,
                  half_of<L>(group, task) * task.half_rows + group_row<L>(weight_tile, group, task), full,
                  weight_policy);
    }
  };
  const auto fetch_inputs = [&](int item, int stage) {
    const int row = item / task.chunks % task.row_tiles * kN, chunk = item % task.chunks;
    char* to = ring + stage * task.stage_bytes;
    constexpr int kBoxes = kPanels ? 2 : 1;
#pragma unroll
    for (int box = 0; box < kBoxes; ++box)
      copy_tile(to + box * L::kInputBoxBytes, &task.input_tiles, (chunk * kBoxes + box) * columns, row,
                barriers.full + stage, often);
  };
  const int ahead = min(task.stages, last - first);
  for (int use = 0; use < ahead; ++use) fetch_weights(first + use, use);
  wait_for_earlier_kernels();
  for (int use = 0; use < ahead; ++use) fetch_inputs(first + use, use);
  RingPlace place;
  for (int item = first + ahead; item < last; ++item) {
    barrier_wait(barriers.empty + place.stage, place.parity);
    fetch_weights(item, place.stage);
    fetch_inputs(item, place.stage);
    place.advance(task.stages);
  }
}

// Adds the products of chunk after chunk until `end`.
template <Operand kOperand, int kN, class Sum>
__device__ void add_products(const StreamedTask& task, const char* ring, Barriers& barriers, RingPlace& place,
                             int count, Sum (&sums)[kN / 2]) {
  using L = StreamedLayout<false, kN>;
  int before = -1;  // the stage whose products may still be under way
  for (; count > 0; --count, place.advance(task.stages)) {
    barrier_wait(barriers.full + place.stage, place.parity);
    const char* at = ring + place.stage * task.stage_bytes;
    const std::uint32_t a = tile_descriptor(at + L::kInputBytes + threadIdx.x / 128 * 64 * 128);
    const std::uint32_t b = tile_descriptor(at);
    if constexpr (kOperand == Operand::kE4M3) {
      // The tensor cores' own sums of e4m3 products keep few bits (DeepSeek-V3, 2024, section 3.3.2): they
      // hold one chunk, and float32 registers the rest.
      Sum chunk[kN / 2];
      products_begin();
#pragma unroll
      for (int step = 0; step < 4; ++step)
        WarpgroupProduct<kOperand, kN>::add(chunk, a + 2 * step, b + 2 * step, step > 0);
      products_commit();
      products_wait<0>();
      hold(chunk);
      if (threadIdx.x % 128 == 0) barrier_arrive(barriers.empty + place.stage);
#pragma unroll
      for (int i = 0; i < kN / 2; ++i) sums[i] += chunk[i];
    } else {
      hold(sums);
      products_begin();
#pragma unroll
      for (int step = 0; step < 4; ++step)
        WarpgroupProduct<kOperand, kN>::add(sums, a + 2 * step, b + 2 * step, 1);
      products_commit();
      products_wait<1>();
      if (before >= 0 && threadIdx.x % 128 == 0) barrier_arrive(barriers.empty + before);
      before = place.stage;
    }
  }
  if constexpr (kOperand != Operand::kE4M3) {
    products_wait<0>();
    hold(sums);
    if (threadIdx.x % 128 == 0) barrier_arrive(barriers.empty + before);
  }
}

// The same with int4 panels: codes less zero points, exact in bf16, are multiplied from registers; the sums
// of kSteps * 16 columns, which lie in one group, are scaled.
template <int kN, int kSteps>
__device__ void add_panels(const StreamedTask& task, const char* ring, Barriers& barriers, RingPlace& place,
                           int count, float (&sums)[kN / 2]) {
  using L = StreamedLayout<true, kN>;
  const Int4Panels& panels = task.panels;
  const int thread = threadIdx.x % 128, row = thread / 32 * 16 + thread % 32 / 4;
  for (; count > 0; --count, place.advance(task.stages)) {
    barrier_wait(barriers.full + place.stage, place.parity);
    const char* inputs = ring + place.stage * task.stage_bytes;
    const char* block = inputs + L::kInputBytes + threadIdx.x / 128 * panels.block_bytes;
    const char* scales = block + kPanelCodeBytes;
    const auto* zeros = reinterpret_cast<const std::int8_t*>(block + panels.zero_offset);
#pragma unroll
    for (int unit = 0; unit < 8 / kSteps; ++unit) {
      std::uint32_t pairs[kSteps * 4];
      expand_unit<kSteps>(block, unit, thread, panels.has_zeros, zeros + unit * 64 + row, pairs);
      float chunk[kN / 2];
      hold(pairs);
      products_begin();
#pragma unroll
      for (int step = 0; step < kSteps; ++step) {
        const int at = unit * kSteps + step;
        RegisterProduct<kN, false>::add(chunk, pairs + 4 * step,
                                        tile_descriptor(inputs + at / 4 * L::kInputBoxBytes) + at % 4 * 2,
                                        step > 0);
      }
      products_commit();
      const float scale[2] = {panel_scale(scales, unit * 64 + row, panels.scale),
                              panel_scale(scales, unit * 64 + row + 8, panels.scale)};
      products_wait<0>();
      hold(chunk);
      hold(pairs);
#pragma unroll
      for (int i = 0; i < kN / 2; ++i) sums[i] = __fmaf_rn(chunk[i], scale[i / 2 % 2], sums[i]);
    }
    if (threadIdx.x % 128 == 0) barrier_arrive(barriers.empty + place.stage);
  }
}

// For many rows, where products and not memory are the limit: weights are scaled, and rounded to bf16, before
// they are multiplied, so that one product follows another without a wait for its sums.
template <int kN, int kSteps, bool kBf16Scales>
__device__ void add_scaled_panels(const StreamedTask& task, const char* ring, Barriers& barriers,
                                  RingPlace& place, int count, float (&sums)[kN / 2]) {
  using L = StreamedLayout<true, kN>;
  constexpr int kPending = 3;
  const Int4Panels& panels = task.panels;
  const int thread = threadIdx.x % 128, row = thread / 32 * 16 + thread % 32 / 4;
  std::uint32_t pairs[kPending + 1][4] = {};
  int before = -1;  // the stage whose products may still be under way
  for (; count > 0; --count, place.advance(task.stages)) {
    barrier_wait(barriers.full + place.stage, place.parity);
    const char* inputs = ring + place.stage * task.stage_bytes;
    const char* block = inputs + L::kInputBytes + threadIdx.x / 128 * panels.block_bytes;
    const uint4 raw[2] = {*reinterpret_cast<const uint4*>(block + thread * 16),
                          *reinterpret_cast<const uint4*>(block + 2048 + thread * 16)};
    const auto* words = reinterpret_cast<const std::uint32_t*>(raw);
    std::uint32_t zeros[2];
    RowScale scales[2];
#pragma unroll
    for (int step = 0; step < 8; ++step) {
      if (step % kSteps == 0)
#pragma unroll
        for (int high = 0; high < 2; ++high) {
          const int index = step / kSteps * 64 + row + high * 8;
          zeros[high] = 0x43084308;  // 136
          if (panels.has_zeros)      // 128 to 143: a step of 1 in the last bit
            zeros[high] += static_cast<std::uint32_t>(
                               reinterpret_cast<const std::int8_t*>(block + panels.zero_offset)[index]) *
                           0x10001u;
          scales[high] = row_scale(block + kPanelCodeBytes, index, panels.scale);
        }
      auto& now = pairs[step % (kPending + 1)];
      products_wait<kPending>();
      hold(now);
      // Those of the chunk before are complete.
      if (step == kPending && before >= 0 && thread == 0) barrier_arrive(barriers.empty + before);
      expand_codes(words[step], zeros[0], zeros[1], now);
#pragma unroll
      for (int k = 0; k < 4; ++k) now[k] = scaled_pair<kBf16Scales>(now[k], scales[k % 2]);
      hold(now);
      products_begin();
      RegisterProduct<kN, false>::add(
          sums, now, tile_descriptor(inputs + step / 4 * L::kInputBoxBytes) + step % 4 * 2, 1);
      products_commit();
    }
    before = place.stage;
  }
  products_wait<0>();
#pragma unroll
  for (int i = 0; i <= kPending; ++i) hold(pairs[i]);
  hold(sums);
  if (thread == 0) barrier_arrive(barriers.empty + before);
}

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
      barrier_init(barriers.empty + stage, L::kGroups);
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
        if (task.panels.scale == PanelScale::kBf16)
          add_scaled_panels<kN, kSteps, true>(task, ring, barriers, place, end - item, sums);
        else
          add_scaled_panels<kN, kSteps, false>(task, ring, barriers, place, end - item, sums);
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
