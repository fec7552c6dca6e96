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
//
// This file has the products, the kernel, its cut and its launch; wide_panels_task.cuh what a block has to
// do, wide_panels_feed.cuh how weights and inputs come, wide_panels_finish.cuh what becomes of the sums.
#include "backend/cuda/wide_panels.h"

#include <algorithm>

#include "backend/cuda/launch.cuh"
#include "backend/cuda/scaled_panels.cuh"
#include "backend/cuda/wide_panels_feed.cuh"
#include "backend/cuda/wide_panels_finish.cuh"

namespace bise::cuda {
namespace {

constexpr int kMostSplits = 8;
constexpr int kSharedBytes = 227 * 1024 - 2048;  // beside static memory and the alignment

template <class L>
__global__ void __launch_bounds__(L::kThreads, 1) wide_kernel(const __grid_constant__ WideTask task) {
  extern __shared__ char memory[];
  __shared__ WideBarriers barriers;
  char* ring = memory + (1024 - shared_address(memory) % 1024) % 1024;
  let_next_kernel_begin();
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < task.stages; ++stage) {
      barrier_init(barriers.full + stage, 1);
      barrier_init(barriers.empty + stage, task.sharing * L::kGroups * kPanelArrivals);
    }
    for (int group = 0; group < L::kGroups; ++group) {
      barrier_init(barriers.parts + group, 1);
      barrier_init(barriers.taken + group, 1);
    }
    barrier_init_visible();
  }
  __syncthreads();
  const WidePlace own(task);
  if (task.sharing > 1) sync_cluster();

  if (threadIdx.x >= L::kConsumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(L::kProducerRegisters));
    if (threadIdx.x / 32 == L::kConsumers / 32 && elected()) feed_wide<L>(task, own, ring, barriers);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(L::kConsumerRegisters));
    wait_for_earlier_kernels();
    // In each of the cluster's blocks, which fetch half of the stage's inputs each. Arrivals at the other
    // block's barrier make no writes visible there (.release.cluster: a fence of the whole GPU); it reads
    // none of this warp's.
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const bool arrives = lane < task.sharing;
    const auto release = [&](int stage) {
      if (arrives) barrier_arrive_in(barriers.empty + stage, lane);
    };
    RingPlace place;
    for (int round = 0; round < own.rounds(task); ++round) {
      const int tile = own.tile(round, task);
      float sums[L::kSums];
#pragma unroll
      for (int i = 0; i < L::kSums; ++i) sums[i] = 0;
      add_scaled_panels<L::kN, 8, true>(task.panels, {ring, task.stage_bytes, task.stages, barriers.full},
                                        place, own.count, sums, release);
      if (task.gated)
        finish_wide_gated<L>(task, own, tile, round, ring + task.stages * task.stage_bytes, barriers, sums);
      else if (task.splits > 1)
        finish_wide_split<L>(task, own, tile, sums);
      else
        finish_wide_whole<L>(task, own, tile, sums);
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

// Of a multiprocessor, fitted to times on an H200 (qkv, output, gate and up, down of Ministral-8B, 33 to 512
// rows, all cuts: the fastest or within 2% of it). Blocks that wait for each other must all run at once.
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
  task.stages = std::min(kMostWideStages, (kSharedBytes - parts) / task.stage_bytes);
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
         has_bf16_scales(panels) && weight.rows % (gated ? 128 : 8) == 0;
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
