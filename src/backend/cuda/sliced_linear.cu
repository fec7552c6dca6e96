#include "backend/cuda/sliced_linear.h"

#include "backend/cuda/sliced_kernel.cuh"
#include "backend/cuda/streamed_kernel.cuh"

namespace bise::cuda {

int sliced_tile_rows(std::int64_t weight_rows, std::int64_t row_bytes) {
  constexpr std::int64_t kSmallBytes = 2 << 20;  // not bound by memory
  const std::int64_t blocks = streamed_blocks();
  for (const std::int64_t rows : {16, 32, 48, 64, 96, 128, 192}) {
    if (rows * blocks < weight_rows) continue;
    const bool is_even = 10 * rows * blocks <= 11 * weight_rows;
    return is_even || weight_rows * row_bytes <= kSmallBytes ? static_cast<int>(rows) : 0;
  }
  return 0;
}

void sliced_linear(const StreamedLinear& linear, int tile_rows, cudaStream_t stream) {
  const int value_bytes = linear.encoding == Encoding::kBf16 ? 2 : 1;
  SlicedTask task = {};
  task.weight_tiles = linear.weight_tiles;
  task.input_tiles = linear.input_tiles;
  task.chunk_columns = 128 / value_bytes;
  task.rows = static_cast<int>(linear.rows);
  task.row_box = input_tile_rows(linear.rows);
  task.half_rows = static_cast<int>(linear.gated ? linear.weight_rows / 2 : linear.weight_rows);
  task.tiles = static_cast<int>((linear.weight_rows + tile_rows - 1) / tile_rows);
  task.chunks = static_cast<int>(linear.stride / task.chunk_columns);
  task.gated = linear.gated;
  task.in_scales = linear.in_scales;
  task.weight_scales = linear.weight_scales;
  task.bias = linear.bias;
  task.out = linear.out;
  task.out_stride = linear.out_stride;
  switch (linear.encoding) {
    case Encoding::kBf16: return start_sliced_bf16(task, tile_rows, stream);
    case Encoding::kInt8Token: return start_sliced_int8(task, tile_rows, stream);
    default: return start_sliced_e4m3(task, tile_rows, stream);
  }
}

}  // namespace bise::cuda
