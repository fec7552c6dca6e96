// The kernel of sliced_int4.h for one and two rows of the input, whose digits fit one product: TPOT 2.01 and
// 2.05 ms where sliced_int4.cuh takes 2.41 and 2.57 (W4A16 g128, one H200). With more rows than
// kDigitInt4Rows writing digits takes longer than codes save. Rows with infinities or NaN become NaN, and so
// do those with values of 2^110 and more.
//
// A block takes a tile of the weight's rows and one chain's range of its columns. The copy engine brings the
// panels, as they lie, into a ring of shared memory, some of them while the kernels that make the inputs
// still run; three warps write the inputs' digits beside them (int4_digits.cuh). Codes as they are, those of
// one row of a panel's word times 16, are operand A of mma.sync in 8 bits (the weight's rows are the
// product's), digits operand B; each of eight warps has two or three units of 16 rows of the weight. What
// codes are offset by is taken off with the sums of digits, before the first product. The sums of a group of
// columns, or of 128 of them, are scaled and added in the order of the columns; blocks join theirs as in
// sliced_int4.cuh.
#include "backend/cuda/int4_digits.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/panel_codes.cuh"
#include "backend/cuda/sliced_int4_join.cuh"
#include "backend/cuda/sliced_int4_task.cuh"

namespace bise::cuda {
namespace {

constexpr int kDigitWarps = 3, kDigitThreads = kInt4Consumers + kDigitWarps * 32 + 32;
// Other kernels' loads wait behind the weights that a ring asks for (see kWindowBytes in sliced_kernel.cuh).
constexpr int kStagesUnderWay = 2;
// Of the threads that multiply and of the others; two blocks share a multiprocessor.
constexpr int kConsumerRegisters = 96, kOtherRegisters = 48;

struct Barriers {
  std::uint64_t weights[kMostInt4Stages], inputs[kMostInt4Stages], empty[kMostInt4Stages];
};

// One thread. The weight is nobody's result: only inputs wait for earlier kernels.
__device__ inline void feed_weights(const SlicedInt4Task& task, char* ring, Barriers& barriers,
                                    const Int4Work& work) {
  const std::uint64_t once = read_once_policy();
  const auto block_bytes = static_cast<std::uint32_t>(task.panels.block_bytes);
  const int halves = task.gated ? 2 : 1, of_half = task.row_blocks / halves, first = work.tile * of_half;
  const int there = min(of_half, task.half_blocks - first);
  const std::int64_t row_bytes = std::int64_t{task.chunks} * task.panels.block_bytes;
  const char* panels = static_cast<const char*>(task.panels.data) + first * row_bytes;
  const auto fetch = [&](int chunk, int stage) {
    std::uint64_t* full = barriers.weights + stage;
    barrier_expect_bytes(full, static_cast<std::uint32_t>(halves * there) * block_bytes);
    for (int half = 0; half < halves; ++half) {
      char* to = ring + stage * task.stage_bytes + kDigitBytes + half * of_half * task.panels.block_bytes;
      const char* from =
          panels + half * task.half_blocks * row_bytes + std::int64_t{chunk} * task.panels.block_bytes;
      for (int block = 0; block < there; ++block, to += block_bytes, from += row_bytes)
        copy_bytes(to, from, block_bytes, full, once);
    }
  };
  RingPlace place, landed;
  for (int i = 0; i < work.last - work.first; ++i, place.advance(task.stages)) {
    if (i >= kStagesUnderWay) {
      barrier_wait(barriers.weights + landed.stage, landed.parity);
      landed.advance(task.stages);
    }
    if (i >= task.stages) barrier_wait(barriers.empty + place.stage, place.parity ^ 1);
    fetch(work.first + i, place.stage);
  }
}

// The warps that write digits take a row of a chunk in turns. Loads take long behind weights that are on
// their way, so several are under way.
template <bool kBySteps>
__device__ void feed_digits(const SlicedInt4Task& task, char* ring, Barriers& barriers, const Int4Work& work,
                            int warp) {
  constexpr int kTogether = 2, kAhead = 4;
  struct Item {
    int chunk, row;
    __device__ void settle(int rows) {
      for (; row >= rows; row -= rows) ++chunk;
    }
    __device__ void advance(int rows) {
      row += kDigitWarps;
      settle(rows);
    }
  };
  const std::int64_t stride = std::int64_t{task.chunks} * kInt4Columns;
  const int chunks = work.last - work.first;
  const bf16* inputs = task.inputs + work.first * kInt4Columns;
  Item item = {0, warp};
  item.settle(task.rows);
  Item loaded = item;
  const auto load_next = [&](RowPairs& pairs) {
    if (loaded.chunk >= chunks) return;
    pairs = load_pairs(inputs + loaded.row * stride + loaded.chunk * kInt4Columns);
    loaded.advance(task.rows);
  };
  RowPairs pairs[kAhead] = {};
#pragma unroll
  for (int i = 0; i < kAhead; ++i) load_next(pairs[i]);
  RingPlace place;
  int placed = 0;  // the chunk that `place` is of
  while (item.chunk < chunks) {
#pragma unroll
    for (int i = 0; i < kAhead; i += kTogether) {
      RowDigits digits[kTogether];
#pragma unroll
      for (int k = 0; k < kTogether; ++k) digits[k] = digits_of_row<kBySteps>(pairs[i + k]);
#pragma unroll
      for (int k = 0; k < kTogether; ++k) load_next(pairs[i + k]);
#pragma unroll
      for (int k = 0; k < kTogether; ++k) {
        if (item.chunk >= chunks) break;
        place.advance(item.chunk - placed, task.stages);
        placed = item.chunk;
        if (item.chunk >= task.stages) barrier_wait(barriers.empty + place.stage, place.parity ^ 1);
        store_digits<kBySteps>(ring + place.stage * task.stage_bytes, item.row, digits[k]);
        __syncwarp();
        if (threadIdx.x % 32 == 0) barrier_arrive(barriers.inputs + place.stage);
        item.advance(task.rows);
      }
    }
  }
}

// What is known of the panels when a kernel is compiled: usual ones have groups of 128 columns or multiples,
// scales of bf16 and no zero points.
enum class Panels { kUsual, kAny };

// The scales of the two rows of a unit that are the thread's, for one part of a chunk's columns, and what
// their codes are offset by.
struct UnitGroup {
  float scales[2];
  int offsets[2];
};
template <Panels kPanels>
__device__ inline UnitGroup unit_group(const Int4Panels& panels, const char* block, int row, int part) {
  constexpr int kOffset = 8;
  const char* scales = block + kPanelCodeBytes;
  UnitGroup group = {{}, {kOffset, kOffset}};
  if constexpr (kPanels == Panels::kUsual) {
    group.scales[0] = load_value(reinterpret_cast<const bf16*>(scales) + row);
    group.scales[1] = load_value(reinterpret_cast<const bf16*>(scales) + row + 8);
  } else {
    const int at = part * 32 / panels.group_columns * 64 + row;
    group.scales[0] = panel_scale(scales, at, panels.scale);
    group.scales[1] = panel_scale(scales, at + 8, panels.scale);
    if (panels.has_zeros) {
      const auto* zeros = reinterpret_cast<const std::int8_t*>(block + panels.zero_offset) + at;
      group.offsets[0] += zeros[0];
      group.offsets[1] += zeros[8];
    }
  }
  // The codes of the second row are times 16.
  group.scales[1] *= 0.0625f;
  group.offsets[1] *= 16;
  return group;
}

// Adds the products of a stage's chunk.
template <int kUnits, Panels kPanels>
__device__ inline void add_chunk(const SlicedInt4Task& task, const char* stage,
                                 const UnitPlace (&units)[kUnits], float (&sums)[kUnits][4]) {
  constexpr int kParts = kPanels == Panels::kUsual ? 1 : 4;  // of a chunk that are scaled by themselves
  const int lane = threadIdx.x % 32, pair = lane % 4 * 2;    // its columns of the product
  const float2 worth = *reinterpret_cast<const float2*>(stage + kDigitWorthsAt + pair * 4);
  const float worths[2] = {worth.x, worth.y}, less[2] = {-kWhole * worth.x, -kWhole * worth.y};
  std::int32_t products[kUnits][4];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    std::uint32_t digits[4];
    load_digits(stage, half, digits);
#pragma unroll
    for (int u = 0; u < kUnits; ++u) {
      const char* block = stage + units[u].block;
      const uint4 raw = *reinterpret_cast<const uint4*>(
          block + (half * 4 + units[u].row / kUnitRows) * kUnitBytes + lane * 16);
      const std::uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
      for (int i = 0; i < 2; ++i) {  // products of 32 columns
        const int step = half * 2 + i, part = step * kParts / 4;
        const bool first = step * kParts % 4 == 0, last = (step + 1) * kParts % 4 == 0;
        UnitGroup group;
        if (first || last) group = unit_group<kPanels>(task.panels, block, units[u].row, part);
        if (first) {
          const int2 of_digits =
              *reinterpret_cast<const int2*>(stage + kDigitSumsAt + (part * kDigitColumns + pair) * 4);
#pragma unroll
          for (int k = 0; k < 4; ++k)
            products[u][k] = kWholeBits - group.offsets[k / 2] * (k % 2 == 0 ? of_digits.x : of_digits.y);
        }
        const std::uint32_t a[4] = {words[i * 2] & 0x0f0f0f0fu, words[i * 2] & 0xf0f0f0f0u,
                                    words[i * 2 + 1] & 0x0f0f0f0fu, words[i * 2 + 1] & 0xf0f0f0f0u};
        multiply_digits(products[u], a, digits[i * 2], digits[i * 2 + 1]);
        if (last)
#pragma unroll
          for (int k = 0; k < 4; ++k)
            sums[u][k] =
                __fmaf_rn(__fmaf_rn(__int_as_float(products[u][k]), worths[k % 2], less[k % 2]),  // exact
                          group.scales[k / 2], sums[u][k]);
      }
    }
  }
}

template <int kUnits, Panels kPanels>
__device__ void add_chunks(const SlicedInt4Task& task, const char* ring, int chunks, Barriers& barriers,
                           float (&sums)[kUnits][4]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  UnitPlace units[kUnits];
#pragma unroll
  for (int u = 0; u < kUnits; ++u) {
    const int unit = warp * kUnits + u;
    units[u] = {kDigitBytes + unit / 4 * task.panels.block_bytes, unit % 4 * kUnitRows + lane / 4};
  }
  RingPlace place;
  for (; chunks > 0; --chunks, place.advance(task.stages)) {
    barrier_wait(barriers.weights + place.stage, place.parity);
    barrier_wait(barriers.inputs + place.stage, place.parity);
    add_chunk<kUnits, kPanels>(task, ring + place.stage * task.stage_bytes, units, sums);
    __syncwarp();
    if (lane == 0) barrier_arrive(barriers.empty + place.stage);
  }
}

// Joins the digits of the warp's sums and leaves them in `all` [rows, row_blocks * 64].
template <int kUnits>
__device__ inline void leave_sums(const SlicedInt4Task& task, const float (&sums)[kUnits][4], float* all) {
  const int row = threadIdx.x % 4, tile_rows = task.row_blocks * 64;
  float* to = all + row * tile_rows + threadIdx.x / 32 * kUnits * kUnitRows + threadIdx.x % 32 / 4;
#pragma unroll
  for (int u = 0; u < kUnits; ++u)
#pragma unroll
    for (int high = 0; high < 2; ++high) {
      const float* lower = sums[u] + high * 2;
      const float sum = lower[0] + lower[1] + __shfl_xor_sync(~0u, lower[0], 2);
      if (row < task.rows) __stcg(to + u * kUnitRows + high * 8, sum);
    }
}

template <int kUnits, Panels kPanels>
__global__ void __launch_bounds__(kDigitThreads, 2)
    digit_int4_kernel(const __grid_constant__ SlicedInt4Task task) {
  extern __shared__ char memory[];
  __shared__ Barriers barriers;
  char* ring = memory + (kInt4Alignment - shared_address(memory) % kInt4Alignment) % kInt4Alignment;

  let_next_kernel_begin();
  const Int4Work work = work_of(task);
  if (work.tile >= task.tiles) return wait_for_earlier_kernels();  // keeps a place, see sliced_int4.cu
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < task.stages; ++stage) {
      barrier_init(barriers.weights + stage, 1);
      barrier_init(barriers.inputs + stage, task.rows);
      barrier_init(barriers.empty + stage, kInt4Warps);
    }
    barrier_init_visible();
  }
  __syncthreads();

  if (threadIdx.x >= kInt4Consumers) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kOtherRegisters));
    const int warp = (threadIdx.x - kInt4Consumers) / 32;
    if (warp == kDigitWarps) {
      if (elected()) feed_weights(task, ring, barriers, work);
    } else {
      wait_for_earlier_kernels();
      feed_digits<kPanels == Panels::kAny>(task, ring, barriers, work, warp);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kConsumerRegisters));
    wait_for_earlier_kernels();
    float sums[kUnits][4] = {};
    add_chunks<kUnits, kPanels>(task, ring, work.last - work.first, barriers, sums);
    const int part = task.rows * task.row_blocks * 64;
    float* all = task.partial + std::int64_t{work.tile} * task.chains * part;
    leave_sums(task, sums, all + work.chain * part);
    join_blocks(task, work.tile);
    write_share(task, work, all);
  }
}

template <int kUnits, Panels kPanels>
void start(const SlicedInt4Task& task, int blocks, int bytes, cudaStream_t stream) {
  const auto kernel = digit_int4_kernel<kUnits, kPanels>;
  static const cudaError_t allowed =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 225 * 1024);
  (void)allowed;  // the launch fails if this did
  launch(kernel, static_cast<unsigned>(blocks), kDigitThreads, static_cast<std::size_t>(bytes), stream, task);
}

template <int kUnits>
void start(const SlicedInt4Task& task, int blocks, int bytes, cudaStream_t stream) {
  const bool usual = task.panels.scale == PanelScale::kBf16 && !task.panels.has_zeros &&
                     task.panels.group_columns == kInt4Columns;
  if (usual) return start<kUnits, Panels::kUsual>(task, blocks, bytes, stream);
  start<kUnits, Panels::kAny>(task, blocks, bytes, stream);
}

}  // namespace

void start_digit_int4(const SlicedInt4Task& task, int blocks, int bytes, cudaStream_t stream) {
  if (task.row_blocks == 6) return start<3>(task, blocks, bytes, stream);
  start<2>(task, blocks, bytes, stream);
}

}  // namespace bise::cuda
