#include "backend/cuda/tiled_linear.h"

#include <algorithm>

#include "backend/cuda/grouped_linear.h"
#include "backend/cuda/streamed_linear.h"
#include "backend/cuda/tiled_kernel.cuh"

namespace bise::cuda {
namespace {

// Of the input, in the second-level cache while all of the weight passes.
constexpr std::int64_t kBandBytes = std::int64_t{16} << 20;

int multiprocessors() {
  static const int count = [] {
    int device = 0, found = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&found, cudaDevAttrMultiProcessorCount, device);
    return found;
  }();
  return count;
}

}  // namespace

bool supports_tiled(std::int64_t weight_rows, TiledResult) {
  return weight_rows % kTileColumns == 0;
}

void tiled_linear(const TiledLinear& linear, TiledResult result, const TiledHeads& heads,
                  cudaStream_t stream) {
  if (linear.rows == 0) return;
  const bool gated = result == TiledResult::kGated;
  const int value_bytes = linear.in.encoding == Encoding::kBf16 ? 2 : 1;
  const std::int64_t stride = linear.in.stride, half = linear.weight_rows / 2;
  TiledTask task = {};
  task.input_tiles = tile_map(linear.in.codes, value_bytes, linear.rows, stride, kTileRows);
  task.weight_tiles =
      gated ? gated_tile_map(linear.weight, value_bytes, half, stride, kTileColumns / 2)
            : tile_map(linear.weight, value_bytes, linear.weight_rows, stride, kTileColumns / 2);
  task.chunk_columns = 128 / value_bytes;
  task.chunks = static_cast<int>(stride / task.chunk_columns);
  task.rows = static_cast<int>(linear.rows);
  task.row_pairs = static_cast<int>((linear.rows + 2 * kTileRows - 1) / (2 * kTileRows));
  task.column_tiles = static_cast<int>(linear.weight_rows / kTileColumns);
  task.band =
      static_cast<int>(std::max<std::int64_t>(1, kBandBytes / (2 * kTileRows * stride * value_bytes)));
  task.row_scales = linear.in.scales;
  task.column_scales = linear.weight_scales;
  task.half_columns = static_cast<int>(half);
  task.out = static_cast<bf16*>(linear.out);
  task.out_stride = gated ? half : linear.weight_rows;
  task.heads = heads;
  const int pairs = std::min(multiprocessors() / 2, task.row_pairs * task.column_tiles);
  switch (linear.in.encoding) {
    case Encoding::kBf16: return start_tiled_bf16(task, result, pairs, stream);
    case Encoding::kInt8Token: return start_tiled_int8(task, result, pairs, stream);
    default: return start_tiled_e4m3(task, result, pairs, stream);
  }
}

}  // namespace bise::cuda
