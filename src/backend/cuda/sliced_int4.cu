// With up to eight rows of the input two blocks share a multiprocessor, of a launch and the next one; never
// two of the same, which would take twice as long. A large and a small block fit together, two large ones, or
// a large and two small ones, do not; multiprocessors without a block of a launch would take two of the next
// one, so they get one that only waits.
#include "backend/cuda/sliced_int4.h"

#include <algorithm>

#include "backend/cuda/int4_digits.cuh"
#include "backend/cuda/sliced_int4_task.cuh"

namespace bise::cuda {
namespace {

constexpr int kPairedRows = 8;
// Of dynamic shared memory, beside 1 KB of each block for barriers and 1 KB that the device keeps.
constexpr int kLargeBytes = 124 * 1024, kSmallBytes = 99 * 1024, kAloneBytes = 225 * 1024;
constexpr int kMostChains = 16;

int most_bytes(const SlicedInt4Task& task) {
  if (task.rows > kPairedRows) return kAloneBytes;
  return task.row_blocks == 6 ? kLargeBytes : kSmallBytes;
}

}  // namespace

Int4Slices int4_slices(std::int64_t rows, std::int64_t weight_rows, std::int64_t stride, bool gated) {
  const std::int64_t blocks = streamed_blocks(), chunks = stride / kInt4Columns;
  Int4Slices best;
  std::int64_t least = 0;  // of the longest block's panels, and of a chunk's digits, which count as two
  const bool has_digits = rows <= kDigitInt4Rows;
  for (const int row_blocks : {4, 6}) {
    const std::int64_t half_rows = gated ? weight_rows / 2 : weight_rows,
                       tile = row_blocks * (gated ? 32 : 64), tiles = (half_rows + tile - 1) / tile;
    if (tiles > blocks) continue;
    const std::int64_t chains = std::min({blocks / tiles, chunks, std::int64_t{kMostChains}});
    const std::int64_t work = (row_blocks + (has_digits ? 2 : 0)) * ((chunks + chains - 1) / chains);
    // Of equals, the larger tiles where each of them writes digits.
    if (best.row_blocks > 0 && (has_digits ? work > least : work >= least)) continue;
    least = work;
    best = {.row_blocks = row_blocks, .tiles = static_cast<int>(tiles), .chains = static_cast<int>(chains)};
  }
  return best;
}

void sliced_int4(const StreamedLinear& linear, const Int4Slices& slices, cudaStream_t stream) {
  SlicedInt4Task task = {};
  task.input_tiles = linear.input_tiles;
  task.inputs = static_cast<const bf16*>(linear.inputs);
  task.panels = linear.panels;
  task.rows = static_cast<int>(linear.rows);
  task.row_box = input_tile_rows(linear.rows);
  task.half_rows = static_cast<int>(linear.gated ? linear.weight_rows / 2 : linear.weight_rows);
  task.half_blocks = (task.half_rows + 63) / 64;
  task.gated = linear.gated;
  task.chunks = static_cast<int>(linear.stride / kInt4Columns);
  task.row_blocks = slices.row_blocks;
  task.tiles = slices.tiles;
  task.chains = slices.chains;
  task.weight_scales = linear.weight_scales;
  task.bias = linear.bias;
  task.out = linear.out;
  task.out_stride = linear.out_stride;
  task.partial = static_cast<float*>(linear.workspace);
  task.arrivals = reinterpret_cast<int*>(static_cast<char*>(linear.workspace) + kPartialBytes);
  const bool has_digits = linear.rows <= kDigitInt4Rows;
  const int input_bytes = has_digits ? kDigitBytes : task.row_box * kInt4Columns * 2;
  const int stage = input_bytes + task.row_blocks * task.panels.block_bytes;
  task.stage_bytes = (stage + kInt4Alignment - 1) / kInt4Alignment * kInt4Alignment;
  task.stages = std::min(kMostInt4Stages, (most_bytes(task) - kInt4Alignment) / task.stage_bytes);
  int blocks = task.tiles * task.chains;
  if (task.rows <= kPairedRows) blocks = std::max(blocks, streamed_blocks());
  // All that it may have, however few stages a weight needs: see above.
  const auto start = has_digits          ? start_digit_int4
                     : task.row_box == 8 ? start_sliced_int4_8
                                         : start_sliced_int4_16;
  start(task, blocks, most_bytes(task), stream);
}

}  // namespace bise::cuda
