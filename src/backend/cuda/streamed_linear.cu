// Every weight byte is read once from memory by the copy engine into a ring of shared memory, deep enough to
// keep the memory busy and filled while the kernel before still runs; two or four warpgroups multiply each
// tile, the weight's rows being the product's rows.
//
// The work, tiles of weight rows times chunks of 128 bytes of columns, is laid out in one line and cut into
// one equal piece for each multiprocessor (stream-K; Osama et al. 2023). Where a tile is cut, the blocks
// leave their sums in the workspace, and those that have no further tile wait for all and add a share of them
// each, in the order of the columns. For up to kStreamedRows rows where cuts fall depends on the weight
// alone, so a row's result does not depend on the other rows.
#include "backend/cuda/streamed_kernel.cuh"

namespace bise::cuda {

int streamed_blocks() {
  static const int count = [] {
    int device = 0, multiprocessors = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
    return std::min(kMostStreamedBlocks, multiprocessors);
  }();
  return count;
}

int input_tile_rows(std::int64_t rows) {
  int tile = 8;
  while (tile < rows && tile < 128) tile *= 2;
  return tile;
}

std::size_t streamed_workspace() {
  return kPartialBytes + kMostArrivals * 2 * sizeof(int);
}

bool supports_streamed_gate(const Weight& weight) {
  return weight.format != WeightFormat::kInt4Panels || weight.rows / 2 % 64 == 0;
}

void streamed_linear(const StreamedLinear& linear, cudaStream_t stream) {
  const bool has_panels = linear.panels.data != nullptr;
  const int value_bytes = linear.encoding == Encoding::kBf16 ? 2 : 1;
  const int chunk_columns = has_panels ? 128 : 128 / value_bytes;
  StreamedTask task = {};
  task.weight_tiles = linear.weight_tiles;
  task.input_tiles = linear.input_tiles;
  task.panels = linear.panels;
  task.value_bytes = value_bytes;
  task.rows = static_cast<int>(linear.rows);
  task.half_rows = static_cast<int>(linear.gated ? linear.weight_rows / 2 : linear.weight_rows);
  task.chunks = static_cast<int>(linear.stride / chunk_columns);
  task.gated = linear.gated;
  task.in_scales = linear.in_scales;
  task.weight_scales = linear.weight_scales;
  task.bias = linear.bias;
  task.out = linear.out;
  task.out_stride = linear.out_stride;
  task.partial = linear.workspace;
  task.arrivals = reinterpret_cast<int*>(static_cast<char*>(linear.workspace) + kPartialBytes);
  if (has_panels) return start_streamed_int4(task, stream);
  switch (linear.encoding) {
    case Encoding::kBf16: return start_streamed_bf16(task, stream);
    case Encoding::kInt8Token: return start_streamed_int8(task, stream);
    default: return start_streamed_e4m3(task, stream);
  }
}

}  // namespace bise::cuda
