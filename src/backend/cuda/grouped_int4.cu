// The grouped kernel for int4 panels with bf16 inputs: codes less zero points, exact in bf16, are multiplied
// from registers, the sums of a group's columns are scaled. See grouped_kernel.cuh; a chunk is 128 columns.
#include "backend/cuda/grouped_kernel.cuh"
#include "backend/cuda/panel_codes.cuh"

namespace bise::cuda {
namespace {

// The block of 64 weight rows that a warpgroup's `block` of a tile is. Where gate and up are joined, a
// warpgroup's blocks are those of gate and up of the same columns of the output.
template <class L, bool kGated>
__device__ inline int panel_block(int tile, int group, int block, int half_blocks) {
  static_assert(!kGated || L::kBlocks == 2);
  if constexpr (kGated) return tile * L::kGroups + group + block * half_blocks;
  return (tile * L::kGroups + group) * L::kBlocks + block;
}

template <class L, bool kGated>
__device__ void fetch_panels(const GroupedTask& task, const ChunkWalk& at, char* stage, std::uint64_t* full,
                             std::uint64_t policy) {
  const int columns_blocks = (task.columns + 63) / 64;
  const auto is_there = [&](int group, int block) {
    if (kGated) return at.unit.tile * L::kGroups + group < columns_blocks;
    return panel_block<L, kGated>(at.unit.tile, group, block, 0) < columns_blocks;
  };
  int blocks = 0;
#pragma unroll
  for (int i = 0; i < L::kGroups * L::kBlocks; ++i) blocks += is_there(i / L::kBlocks, i % L::kBlocks);
  const auto bytes = static_cast<std::uint32_t>(task.panels.block_bytes);
  barrier_expect_bytes(full, static_cast<std::uint32_t>(blocks) * bytes +
                                 static_cast<std::uint32_t>(padded_input_rows(at.unit.rows)) * 256);
  const auto* panels = static_cast<const char*>(task.weight_panels[at.unit.expert]);
#pragma unroll
  for (int i = 0; i < L::kGroups * L::kBlocks; ++i) {
    if (!is_there(i / L::kBlocks, i % L::kBlocks)) continue;
    const int block = panel_block<L, kGated>(at.unit.tile, i / L::kBlocks, i % L::kBlocks, columns_blocks);
    copy_bytes(stage + task.input_bytes + i * bytes,
               panels + (std::int64_t{block} * task.chunks + at.chunk) * bytes, bytes, full, policy);
  }
}

template <int kBegin, int kEnd, class Body>
__device__ inline void for_constants(Body body) {
  if constexpr (kBegin < kEnd) {
    body(std::integral_constant<int, kBegin>());
    for_constants<kBegin + 1, kEnd>(body);
  }
}

// The input rows of a unit in products of 8, 16, 32 or 64 of them.
template <int kRows>
struct Parts {
  static constexpr int kFirst = kRows >= 64 ? 64 : kRows >= 32 ? 32 : kRows;
  static constexpr int kCount = kRows > kFirst ? 2 : 1;
  static constexpr int first_row(int part) { return part * kFirst; }
  static constexpr int rows(int part) { return part == 0 ? kFirst : kRows - kFirst; }
};

// kSteps * 16 columns share a scale and a zero point.
template <class L, int kSteps, int kRows>
__device__ void add_panels(const GroupedTask& task, const char* ring, GroupedBarriers& barriers,
                           RingPlace& place, float (&sums)[L::kBlocks][kRows / 2]) {
  const Int4Panels& panels = task.panels;
  const int thread = static_cast<int>(threadIdx.x) % 128, row = thread / 32 * 16 + thread % 32 / 4;
  for (int left = task.chunks; left > 0; --left, place.advance(task.stages)) {
    barrier_wait(barriers.full + place.stage, place.parity);
    const char* inputs = ring + place.stage * task.stage_bytes;
#pragma unroll
    for (int own = 0; own < L::kBlocks; ++own) {
      const int index = static_cast<int>(threadIdx.x) / 128 * L::kBlocks + own;
      const char* block = inputs + task.input_bytes + index * panels.block_bytes;
      const char* scales = block + kPanelCodeBytes;
      const auto* zeros = reinterpret_cast<const std::int8_t*>(block + panels.zero_offset);
#pragma unroll
      for (int unit = 0; unit < 8 / kSteps; ++unit) {
        std::uint32_t pairs[kSteps * 4];
        expand_unit<kSteps>(block, unit, thread, panels.has_zeros, zeros + unit * 64 + row, pairs);
        const float scale[2] = {panel_scale(scales, unit * 64 + row, panels.scale),
                                panel_scale(scales, unit * 64 + row + 8, panels.scale)};
        for_constants<0, Parts<kRows>::kCount>([&](auto part) {
          constexpr int kFirst = Parts<kRows>::first_row(decltype(part)::value);
          constexpr int kWidth = Parts<kRows>::rows(decltype(part)::value);
          float chunk[kWidth / 2];
          start_unit<kWidth, kSteps>(pairs, unit, inputs + kFirst * 128, task.input_bytes / 2, chunk);
          products_wait<0>();
          hold(chunk);
          hold(pairs);
#pragma unroll
          for (int i = 0; i < kWidth / 2; ++i)
            sums[own][kFirst / 2 + i] = __fmaf_rn(chunk[i], scale[i / 2 % 2], sums[own][kFirst / 2 + i]);
        });
      }
    }
    release(barriers, place.stage);
  }
}

template <class L, int kRows>
__device__ void write_gated_panels(const GroupedTask& task, const Unit& unit,
                                   const float (&sums)[L::kBlocks][kRows / 2]) {
  const int group = static_cast<int>(threadIdx.x) / 128, warp = static_cast<int>(threadIdx.x) / 32 % 4;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first = (unit.tile * L::kGroups + group) * 64 + warp * 16 + lane / 4;
  const float* from = task.weight_scales[unit.expert];
  float scales[2][2] = {{1, 1}, {1, 1}};  // of gate and of up
  if (from)
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const int column = min(first + 8 * k, task.columns - 1);
      scales[0][k] = from[column];
      scales[1][k] = from[task.columns + column];
    }
#pragma unroll
  for (int i = 0; i < kRows / 2; ++i) {
    const int n = i / 4 * 8 + lane % 4 * 2 + i % 2, column = first + i / 2 % 2 * 8;
    if (n >= unit.rows || column >= task.columns) continue;
    store_value(static_cast<bf16*>(task.out) + (unit.first_row + n) * task.out_stride + column,
                gated_value(sums[0][i] * scales[0][i / 2 % 2], sums[1][i] * scales[1][i / 2 % 2]));
  }
}

template <class L, int kSteps, bool kGated, int kRows>
__device__ void run_panel_unit(const GroupedTask& task, const Unit& unit, const char* ring,
                               GroupedBarriers& barriers, RingPlace& place) {
  float sums[L::kBlocks][kRows / 2];
#pragma unroll
  for (int block = 0; block < L::kBlocks; ++block)
#pragma unroll
    for (int i = 0; i < kRows / 2; ++i) sums[block][i] = 0;
  add_panels<L, kSteps, kRows>(task, ring, barriers, place, sums);
  if constexpr (kGated)
    write_gated_panels<L, kRows>(task, unit, sums);
  else
    write_unit<L, false, kRows>(task, unit, sums);
}

template <class L, int kSteps, bool kGated>
__global__ void __launch_bounds__(L::kThreads, 1)
    grouped_panels_kernel(const __grid_constant__ GroupedTask task) {
  run_grouped_block<L>(
      task,
      [&](const ChunkWalk& at, char* stage, std::uint64_t* full, std::uint64_t policy) {
        fetch_panels<L, kGated>(task, at, stage, full, policy);
      },
      [&](const ChunkWalk& at, char* stage, std::uint64_t* full, std::uint64_t policy) {
#pragma unroll
        for (int box = 0; box < 2; ++box)
          fetch_rows(task, at.unit, at.chunk * 128 + box * 64, stage + box * (task.input_bytes / 2), full,
                     policy);
      },
      [&](auto rows, const Unit& unit, const char* ring, GroupedBarriers& barriers, RingPlace& place) {
        run_panel_unit<L, kSteps, kGated, decltype(rows)::value>(task, unit, ring, barriers, place);
      });
}

template <class L, int kSteps, bool kGated>
void start_panels(const GroupedLinear& linear, GroupedTask& task, cudaStream_t stream) {
  for (int e = 0; e < task.experts; ++e) task.weight_panels[e] = linear.weights[e]->panels.data;
  task.panels = linear.weights[0]->panels;
  const int blocks = L::kGroups * L::kBlocks;
  start_grouped_kernel<L>(grouped_panels_kernel<L, kSteps, kGated>, linear, task,
                          64 * (kGated ? L::kGroups : blocks), 256, blocks * task.panels.block_bytes, stream);
}

// Expanding codes takes more warpgroups where there are registers for them, but as many units as there are
// multiprocessors.
using FewGatedPanelsLayout = GroupedLayout<4, 2, 32>;
using FewPanelsLayout = GroupedLayout<4, 1, 32>;
using FewestPanelsLayout = GroupedLayout<1, 1, 8>;
using ManyPanelsLayout = GroupedLayout<2, 2, 96>;

template <int kSteps>
void start_panels(const GroupedLinear& linear, GroupedTask& task, cudaStream_t stream) {
  if (linear.rows > FewPanelsLayout::kMostRows)
    linear.gated ? start_panels<ManyPanelsLayout, kSteps, true>(linear, task, stream)
                 : start_panels<ManyPanelsLayout, kSteps, false>(linear, task, stream);
  else if (linear.gated)
    start_panels<FewGatedPanelsLayout, kSteps, true>(linear, task, stream);
  else if (linear.rows > kFewGroupedRows)
    start_panels<FewPanelsLayout, kSteps, false>(linear, task, stream);
  else
    start_panels<FewestPanelsLayout, kSteps, false>(linear, task, stream);
}

}  // namespace

void start_grouped_int4(const GroupedLinear& linear, GroupedTask& task, cudaStream_t stream) {
  switch (linear.weights[0]->panels.group_columns) {
    case 32: return start_panels<2>(linear, task, stream);
    case 64: return start_panels<4>(linear, task, stream);
    default: return start_panels<8>(linear, task, stream);
  }
}

}  // namespace bise::cuda
