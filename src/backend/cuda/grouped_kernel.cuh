// The kernel behind grouped_linear.h. A unit of work is a tile of an expert's weight rows, the product's 64
// rows, times a tile of the expert's input rows, over all columns: sums are added in the order of the
// columns, whatever the other rows and experts are. Units are dealt to the blocks in turn. In a block one
// warpgroup feeds a ring of shared memory and the others multiply, so that reading goes on from unit to unit;
// where few blocks are left over at the end, each gets more of the memory's bandwidth.
//
// Gate and up of a column of the output are in one thread: the tile's rows are 8 of gate, then 8 of up, as a
// thread's sums are of rows 8 apart.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>

#include "backend/cuda/device_math.cuh"
#include "backend/cuda/grouped_linear.h"
#include "backend/cuda/hopper.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/streamed_linear.h"
#include "backend/cuda/warpgroup_product.cuh"

namespace bise::cuda {

constexpr int kMostGroupedStages = 24;
constexpr int kGroupedRingBytes = 227 * 1024 - 2048;  // beside static memory and the alignment

struct GroupedTask {
  CUtensorMap weight_tiles[kMostExperts];
  const void* weight_panels[kMostExperts];  // instead of tiles
  Int4Panels panels;                        // without data
  CUtensorMap input_tiles[4];               // of 8, 16, 32 and 64 rows
  const float* weight_scales[kMostExperts];
  const float* in_scales;
  const std::int32_t *counts, *starts;  // of the experts' rows
  int experts;
  int tiles, chunks;  // of a weight, and of 128 bytes of a row
  int chunk_columns;  // values of a chunk
  int most_rows;      // of a unit
  int columns;        // of the output
  int input_bytes;    // of a stage, before the weights
  int stages, stage_bytes;
  void* out;
  std::int64_t out_stride;
};

// kGroups warpgroups multiply kBlocks times 64 rows of a weight tile each; a unit has up to kMostRows input
// rows.
template <int kGroups_, int kBlocks_, int kMostRows_>
struct GroupedLayout {
  static constexpr int kGroups = kGroups_, kBlocks = kBlocks_, kMostRows = kMostRows_;
  static constexpr int kConsumers = kGroups * 128, kThreads = kConsumers + 128;
  static constexpr int kTileRows = kGroups * kBlocks * 64;
  static constexpr int kBoxRows = kTileRows < 128 ? kTileRows : 128;
  // Of a multiprocessor's 65536; 0: as they are at the start.
  static constexpr int kConsumerRegisters = kGroups == 4 ? 112 : kGroups == 2 ? 232 : 0;
  static constexpr int kProducerRegisters = kGroups == 4 ? 32 : kGroups == 2 ? 40 : 0;
};

struct Unit {
  int expert, tile, first_row, rows;
};

// The units of a block, in order.
struct UnitWalk {
  const GroupedTask& task;
  const std::int32_t *counts, *starts;
  int index;
  int expert = 0, first = 0;  // the expert's first unit

  __device__ bool find(Unit& unit) {
    for (; expert < task.experts; ++expert) {
      const int row_tiles = (counts[expert] + task.most_rows - 1) / task.most_rows, own = index - first;
      if (own < row_tiles * task.tiles) {
        const int row = own % row_tiles * task.most_rows;
        unit = {expert, own / row_tiles, starts[expert] + row, min(task.most_rows, counts[expert] - row)};
        return true;
      }
      first += row_tiles * task.tiles;
    }
    return false;
  }
};

// Rows of an input tile for `rows` of them.
__host__ __device__ inline int padded_input_rows(int rows) {
  return rows <= 8 ? 8 : rows <= 16 ? 16 : rows <= 32 ? 32 : rows <= 48 ? 48 : (rows + 31) / 32 * 32;
}

struct GroupedBarriers {
  std::uint64_t full[kMostGroupedStages], empty[kMostGroupedStages];
};

// Chunk after chunk of a block's units.
struct ChunkWalk {
  UnitWalk units;
  Unit unit = {};
  int chunk = 0;
  bool more;

  __device__ ChunkWalk(const UnitWalk& walk) : units(walk) { more = units.find(unit); }
  __device__ void advance() {
    if (++chunk < units.task.chunks) return;
    chunk = 0;
    units.index += static_cast<int>(gridDim.x);
    more = units.find(unit);
  }
};

template <class L, bool kGated>
__device__ void fetch_tile(const GroupedTask& task, const ChunkWalk& at, char* stage, std::uint64_t* full,
                           std::uint64_t policy) {
  const CUtensorMap* map = task.weight_tiles + at.unit.expert;
  const int column = at.chunk * task.chunk_columns, row = at.unit.tile * L::kTileRows;
  barrier_expect_bytes(full, (L::kTileRows + padded_input_rows(at.unit.rows)) * 128);
#pragma unroll
  for (int box = 0; box < L::kTileRows; box += L::kBoxRows) {
    char* to = stage + task.input_bytes + box * 128;
    if constexpr (kGated)
      copy_tile_of_halves(to, map, column, (row + box) / 16, full, policy);
    else
      copy_tile(to, map, column, row + box, full, policy);
  }
}

// 128 bytes of columns, from `column`.
__device__ inline void fetch_rows(const GroupedTask& task, const Unit& unit, int column, char* to,
                                  std::uint64_t* full, std::uint64_t policy) {
  const int rows = padded_input_rows(unit.rows);
  for (int row = 0, map; row < rows; row += 8 << map) {
    const int left = rows - row;
    map = left >= 64 ? 3 : left >= 32 ? 2 : left >= 16 ? 1 : 0;
    copy_tile(to + row * 128, task.input_tiles + map, column, unit.first_row + row, full, policy);
  }
}

// One thread. Weights that fit the ring are fetched while the kernel before, which makes the inputs, still
// runs; which experts have rows is known by then (place_rows()). fetch_weights and fetch_inputs take the
// chunk, the stage and its barrier.
template <class FetchWeights, class FetchInputs>
__device__ void feed(const GroupedTask& task, const UnitWalk& walk, char* ring, GroupedBarriers& barriers,
                     FetchWeights fetch_weights, FetchInputs fetch_inputs) {
  ChunkWalk weights(walk), inputs = weights;
  for (int use = 0; use < task.stages && weights.more; ++use, weights.advance())
    fetch_weights(weights, ring + use * task.stage_bytes, barriers.full + use);
  wait_for_earlier_kernels();
  for (int use = 0; use < task.stages && inputs.more; ++use, inputs.advance())
    fetch_inputs(inputs, ring + use * task.stage_bytes, barriers.full + use);
  RingPlace place;
  for (; weights.more; weights.advance(), place.advance(task.stages)) {
    char* stage = ring + place.stage * task.stage_bytes;
    barrier_wait(barriers.empty + place.stage, place.parity);
    fetch_weights(weights, stage, barriers.full + place.stage);
    fetch_inputs(weights, stage, barriers.full + place.stage);
  }
}

// Starts the products of 128 bytes of columns for one of a warpgroup's blocks.
template <class L, Operand kOperand, int kRows, class Sum>
__device__ inline void start_block(const GroupedTask& task, const char* stage, int block,
                                   Sum (&sums)[kRows / 2], bool adds) {
  const int index = static_cast<int>(threadIdx.x) / 128 * L::kBlocks + block;
  const std::uint32_t a = tile_descriptor(stage + task.input_bytes + index * 64 * 128);
  const std::uint32_t b = tile_descriptor(stage);
#pragma unroll
  for (int step = 0; step < 4; ++step)
    WarpgroupProduct<kOperand, kRows>::add(sums, a + 2 * step, b + 2 * step, adds || step > 0);
}

__device__ inline void release(GroupedBarriers& barriers, int stage) {
  if (threadIdx.x % 128 == 0) barrier_arrive(barriers.empty + stage);
}

// The tensor cores' own sums of e4m3 products keep few bits (DeepSeek-V3, 2024, section 3.3.2): they hold one
// chunk of a block, and float32 registers the rest. Where registers allow, one is multiplied while another is
// added: of the other block, or where there is but one, of the next chunk.
template <class L, int kRows>
__device__ void add_e4m3(const GroupedTask& task, const char* ring, GroupedBarriers& barriers,
                         RingPlace& place, float (&sums)[L::kBlocks][kRows / 2]) {
  constexpr int kBuffers = kRows <= 64 ? 2 : 1;
  float chunk[kBuffers][kRows / 2];
  const auto start = [&](int stage, int block, auto buffer) {
    products_begin();
    start_block<L, Operand::kE4M3, kRows>(task, ring + stage * task.stage_bytes, block,
                                          chunk[decltype(buffer)::value], false);
    products_commit();
  };
  const auto add = [&](auto block, auto buffer) {
    hold(chunk[decltype(buffer)::value]);
#pragma unroll
    for (int i = 0; i < kRows / 2; ++i) sums[decltype(block)::value][i] += chunk[decltype(buffer)::value][i];
  };
  using Zero = std::integral_constant<int, 0>;
  using One = std::integral_constant<int, 1>;
  if constexpr (L::kBlocks == 2) {
    using Last = std::integral_constant<int, kBuffers - 1>;
    for (int left = task.chunks; left > 0; --left, place.advance(task.stages)) {
      barrier_wait(barriers.full + place.stage, place.parity);
      start(place.stage, 0, Zero());
      if constexpr (kBuffers == 2) {
        start(place.stage, 1, One());
        products_wait<1>();
        add(Zero(), Zero());
      } else {
        products_wait<0>();
        add(Zero(), Zero());
        start(place.stage, 1, Zero());
      }
      products_wait<0>();
      release(barriers, place.stage);
      add(One(), Last());
    }
  } else {
    const auto next = [&](auto buffer) {
      const int stage = place.stage;
      barrier_wait(barriers.full + stage, place.parity);
      start(stage, 0, buffer);
      place.advance(task.stages);
      return stage;
    };
    int left = task.chunks;
    for (; left > 1; left -= 2) {
      const int first = next(Zero()), second = next(One());
      products_wait<1>();
      release(barriers, first);
      add(Zero(), Zero());
      products_wait<0>();
      release(barriers, second);
      add(Zero(), One());
    }
    if (left > 0) {
      const int stage = next(Zero());
      products_wait<0>();
      release(barriers, stage);
      add(Zero(), Zero());
    }
  }
}

// Other products are added up by the tensor cores.
template <class L, Operand kOperand, int kRows, class Sum>
__device__ void add_products(const GroupedTask& task, const char* ring, GroupedBarriers& barriers,
                             RingPlace& place, Sum (&sums)[L::kBlocks][kRows / 2]) {
  int before = -1;  // the stage whose products may still be under way
  for (int left = task.chunks; left > 0; --left, place.advance(task.stages)) {
    barrier_wait(barriers.full + place.stage, place.parity);
#pragma unroll
    for (int block = 0; block < L::kBlocks; ++block) hold(sums[block]);
    products_begin();
#pragma unroll
    for (int block = 0; block < L::kBlocks; ++block)
      start_block<L, kOperand, kRows>(task, ring + place.stage * task.stage_bytes, block, sums[block], true);
    products_commit();
    products_wait<1>();
    if (before >= 0) release(barriers, before);
    before = place.stage;
  }
  products_wait<0>();
#pragma unroll
  for (int block = 0; block < L::kBlocks; ++block) hold(sums[block]);
  release(barriers, before);
}

// Exponential and quotient of the special function unit, as in encode.cu.
__device__ inline float gated_value(float gate, float up) {
  return __fdividef(gate, 1.f + __expf(-gate)) * up;
}

template <class L, bool kGated, int kRows, class Sum>
__device__ void write_unit(const GroupedTask& task, const Unit& unit,
                           const Sum (&sums)[L::kBlocks][kRows / 2]) {
  constexpr int kLanes = (kRows + 31) / 32;
  const int warp = static_cast<int>(threadIdx.x) / 32 % 4, lane = static_cast<int>(threadIdx.x) % 32;
  const int last = task.columns - 1;
  // All scales are loaded before the first result is stored; a lane has those of every 32nd row.
  float in_scales[kLanes], scales[L::kBlocks][2];
#pragma unroll
  for (int k = 0; k < kLanes; ++k)
    in_scales[k] = task.in_scales ? task.in_scales[unit.first_row + min(32 * k + lane, unit.rows - 1)] : 1.f;
  // Of a thread's sums whose i / 2 is even; the others are of up, or 8 columns further.
  int columns[L::kBlocks];
#pragma unroll
  for (int block = 0; block < L::kBlocks; ++block) {
    const int sixteen = (static_cast<int>(threadIdx.x) / 128 * L::kBlocks + block) * 4 + warp;
    columns[block] =
        unit.tile * (kGated ? L::kTileRows / 2 : L::kTileRows) + sixteen * (kGated ? 8 : 16) + lane / 4;
    const float* from = task.weight_scales[unit.expert];
    const int column = min(columns[block], last);
    scales[block][0] = from ? from[column] : 1.f;
    scales[block][1] = from ? from[kGated ? task.columns + column : min(column + 8, last)] : 1.f;
  }
#pragma unroll
  for (int eight = 0; eight < kRows; eight += 8) {
#pragma unroll
    for (int odd = 0; odd < 2; ++odd) {
      const int n = eight + lane % 4 * 2 + odd, i = eight / 2 + odd;
      const float in_scale = __shfl_sync(~0u, in_scales[eight / 32], n % 32);
      if (n >= unit.rows) continue;
      const std::int64_t row = (unit.first_row + n) * task.out_stride;
#pragma unroll
      for (int block = 0; block < L::kBlocks; ++block) {
        const int column = columns[block];
        const float a = static_cast<float>(sums[block][i]) * scales[block][0] * in_scale;
        const float b = static_cast<float>(sums[block][i + 2]) * scales[block][1] * in_scale;
        if constexpr (kGated) {
          if (column <= last) store_value(static_cast<bf16*>(task.out) + row + column, gated_value(a, b));
        } else {
          if (column <= last) store_value(static_cast<float*>(task.out) + row + column, a);
          if (column + 8 <= last) store_value(static_cast<float*>(task.out) + row + column + 8, b);
        }
      }
    }
  }
}

template <class L, Operand kOperand, bool kGated, int kRows>
__device__ void run_unit(const GroupedTask& task, const Unit& unit, const char* ring,
                         GroupedBarriers& barriers, RingPlace& place) {
  using Sum = std::conditional_t<kOperand == Operand::kInt8, int, float>;
  Sum sums[L::kBlocks][kRows / 2];
#pragma unroll
  for (int block = 0; block < L::kBlocks; ++block)
#pragma unroll
    for (int i = 0; i < kRows / 2; ++i) sums[block][i] = 0;
  if constexpr (kOperand == Operand::kE4M3)
    add_e4m3<L, kRows>(task, ring, barriers, place, sums);
  else
    add_products<L, kOperand, kRows>(task, ring, barriers, place, sums);
  write_unit<L, kGated, kRows>(task, unit, sums);
}

// What a block does. fetch_weights and fetch_inputs as feed() takes them, with a cache policy each;
// run_unit(rows of the tile as a constant, unit, ring, barriers, place) multiplies and writes.
template <class L, class FetchWeights, class FetchInputs, class RunUnit>
__device__ void run_grouped_block(const GroupedTask& task, FetchWeights fetch_weights,
                                  FetchInputs fetch_inputs, RunUnit run_unit) {
  extern __shared__ char memory[];
  __shared__ GroupedBarriers barriers;
  __shared__ std::int32_t counts[kMostExperts], starts[kMostExperts];
  char* ring = memory + (1024 - shared_address(memory) % 1024) % 1024;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < task.stages; ++stage) {
      barrier_init(barriers.full + stage, 1);
      barrier_init(barriers.empty + stage, L::kGroups);
    }
    barrier_init_visible();
  }
  if (static_cast<int>(threadIdx.x) < task.experts) {
    counts[threadIdx.x] = __ldcg(task.counts + threadIdx.x);
    starts[threadIdx.x] = __ldcg(task.starts + threadIdx.x);
  }
  __syncthreads();
  UnitWalk walk{task, counts, starts, static_cast<int>(blockIdx.x)};

  if (threadIdx.x >= L::kConsumers) {
    if constexpr (L::kProducerRegisters > 0)
      asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(L::kProducerRegisters));
    if (threadIdx.x == L::kConsumers) {
      const std::uint64_t once = read_once_policy(), often = read_often_policy();
      feed(
          task, walk, ring, barriers,
          [&](const ChunkWalk& at, char* stage, std::uint64_t* full) {
            fetch_weights(at, stage, full, once);
          },
          [&](const ChunkWalk& at, char* stage, std::uint64_t* full) {
            fetch_inputs(at, stage, full, often);
          });
    }
  } else {
    if constexpr (L::kConsumerRegisters > 0)
      asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(L::kConsumerRegisters));
    // In this order, so that the launch after the next may read the routing before it waits.
    wait_for_earlier_kernels();
    let_next_kernel_begin();
    RingPlace place;
    Unit unit;
    for (; walk.find(unit); walk.index += static_cast<int>(gridDim.x)) {
      const auto run = [&](auto rows) { run_unit(rows, unit, ring, barriers, place); };
      const int rows = padded_input_rows(unit.rows);
      if (L::kMostRows == 8 || rows == 8) {
        run(std::integral_constant<int, 8>());
      } else if constexpr (L::kMostRows >= 32) {
        if (rows == 16)
          run(std::integral_constant<int, 16>());
        else if (L::kMostRows == 32 || rows == 32)
          run(std::integral_constant<int, 32>());
        else if constexpr (L::kMostRows == 96) {
          if (rows == 48)
            run(std::integral_constant<int, 48>());
          else if (rows == 64)
            run(std::integral_constant<int, 64>());
          else
            run(std::integral_constant<int, 96>());
        }
      }
    }
  }
}

template <class L, Operand kOperand, bool kGated>
__global__ void __launch_bounds__(L::kThreads, 1) grouped_kernel(const __grid_constant__ GroupedTask task) {
  run_grouped_block<L>(
      task,
      [&](const ChunkWalk& at, char* stage, std::uint64_t* full, std::uint64_t policy) {
        fetch_tile<L, kGated>(task, at, stage, full, policy);
      },
      [&](const ChunkWalk& at, char* stage, std::uint64_t* full, std::uint64_t policy) {
        fetch_rows(task, at.unit, at.chunk * task.chunk_columns, stage, full, policy);
      },
      [&](auto rows, const Unit& unit, const char* ring, GroupedBarriers& barriers, RingPlace& place) {
        run_unit<L, kOperand, kGated, decltype(rows)::value>(task, unit, ring, barriers, place);
      });
}

// Input rows of a unit, for which the ring has room: twice as many as an expert has when the rows are evenly
// spread over Mixtral's. Where one has more, its weights are read again, from the second-level cache.
inline int most_unit_rows(std::int64_t rows) {
  if (rows <= 32) return padded_input_rows(static_cast<int>(rows));
  return rows <= 128 ? 64 : 96;
}

// Fills in what depends on the kernel and starts it. A unit has `tile_columns` columns of the output; a stage
// `weight_bytes`, and `row_bytes` of each input row.
template <class L>
void start_grouped_kernel(void (*kernel)(const GroupedTask), const GroupedLinear& linear, GroupedTask& task,
                          int tile_columns, int row_bytes, int weight_bytes, cudaStream_t stream) {
  task.tiles = (task.columns + tile_columns - 1) / tile_columns;
  task.most_rows = std::min(L::kMostRows, most_unit_rows(linear.rows));
  task.input_bytes = task.most_rows * row_bytes;
  task.stage_bytes = (task.input_bytes + weight_bytes + 1023) / 1024 * 1024;
  task.stages = std::min(kMostGroupedStages, kGroupedRingBytes / task.stage_bytes);
  // Of each kernel the first time would do; the driver makes little of the others.
  (void)cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kGroupedRingBytes + 1024);
  launch(kernel, static_cast<unsigned>(streamed_blocks()), L::kThreads,
         static_cast<std::size_t>(task.stages * task.stage_bytes + 1024), stream, task);
}

template <class L, Operand kOperand, bool kGated>
void start_grouped(const GroupedLinear& linear, GroupedTask& task, cudaStream_t stream) {
  const int value_bytes = kOperand == Operand::kBf16 ? 2 : 1;
  for (int e = 0; e < task.experts; ++e) {
    const Weight& weight = *linear.weights[e];
    task.weight_tiles[e] =
        kGated ? gated_tile_map(weight.codes, value_bytes, weight.rows / 2, weight.stride, L::kBoxRows)
               : tile_map(weight.codes, value_bytes, weight.rows, weight.stride, L::kBoxRows);
  }
  start_grouped_kernel<L>(grouped_kernel<L, kOperand, kGated>, linear, task,
                          kGated ? L::kTileRows / 2 : L::kTileRows, 128, L::kTileRows * 128, stream);
}

// With few rows few experts may have any: small tiles keep all multiprocessors busy. (`down` has few rows.)
constexpr std::int64_t kFewGroupedRows = 4;
using FewGatedLayout = GroupedLayout<1, 2, 8>;
using FewLayout = GroupedLayout<1, 1, 8>;
using ManyLayout = GroupedLayout<2, 2, 96>;

template <Operand kOperand>
void start_grouped(const GroupedLinear& linear, GroupedTask& task, cudaStream_t stream) {
  if (linear.rows <= kFewGroupedRows)
    linear.gated ? start_grouped<FewGatedLayout, kOperand, true>(linear, task, stream)
                 : start_grouped<FewLayout, kOperand, false>(linear, task, stream);
  else
    linear.gated ? start_grouped<ManyLayout, kOperand, true>(linear, task, stream)
                 : start_grouped<ManyLayout, kOperand, false>(linear, task, stream);
}

// One .cu file each: they are compiled beside each other.
void start_grouped_bf16(const GroupedLinear& linear, GroupedTask& task, cudaStream_t stream);
void start_grouped_e4m3(const GroupedLinear& linear, GroupedTask& task, cudaStream_t stream);
void start_grouped_int8(const GroupedLinear& linear, GroupedTask& task, cudaStream_t stream);
void start_grouped_int4(const GroupedLinear& linear, GroupedTask& task, cudaStream_t stream);

}  // namespace bise::cuda
