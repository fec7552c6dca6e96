// Linear layers of few rows whose weight has the operands' own type (bf16 with bf16, e4m3 with e4m3, int8
// with int8) or is int4 panels with bf16 inputs: bound by reading the weight. See streamed_linear.cu.
#pragma once

#include <cuda.h>

#include "backend/cuda/cuda_kernels.h"

namespace bise::cuda {

// Up to so many rows cuBLASLt is not faster (H200, Ministral-8B's shapes). Int4 panels:
// CudaBackend::kPanelRows.
constexpr std::int64_t kStreamedRows = 32;

// How the copy engine finds tiles of a row-major matrix [rows, stride] of 2- or 1-byte values, a tile being
// `tile_rows` rows of 128 bytes. Throws Error when the driver refuses.
CUtensorMap tile_map(const void* data, int value_bytes, std::int64_t rows, std::int64_t stride,
                     int tile_rows);
constexpr int kWeightTileRows = 64;
// Rows of an input tile for `rows` rows.
int input_tile_rows(std::int64_t rows);

struct StreamedLinear {
  CUtensorMap weight_tiles, input_tiles;
  const void* inputs = nullptr;  // [rows, stride], of which input_tiles are
  Int4Panels panels;             // with data instead of weight_tiles
  Encoding encoding = Encoding::kBf16;
  std::int64_t rows = 0;         // of the input and the output
  std::int64_t weight_rows = 0;  // columns of the output, twice where gated
  std::int64_t stride = 0;       // of the weight and of the input, in values
  bool gated = false;            // the output is silu(first half) * second half
  const float *in_scales = nullptr, *weight_scales = nullptr, *bias = nullptr;  // any may be null
  Values out;
  std::int64_t out_stride = 0;
  void* workspace = nullptr;  // streamed_workspace() bytes, zero at first; a launch leaves its counters zero
};
std::size_t streamed_workspace();
// The workspace begins with what blocks leave for each other; their counters follow.
constexpr int kMostStreamedBlocks = 132;  // multiprocessors of an H100 or H200
constexpr int kMostPartialSums = 16384;   // of a tile, of which a block leaves two
constexpr int kMostArrivals = 1 << 16;    // tiles of a product
constexpr std::size_t kPartialBytes = std::size_t{kMostStreamedBlocks} * 2 * kMostPartialSums * 4;
// Whether gate and up may be joined in the launch: int4 panels do not cross from one to the other.
bool supports_streamed_gate(const Weight& weight);
// One for each multiprocessor: blocks wait for each other, so all must run at once.
int streamed_blocks();
void streamed_linear(const StreamedLinear& task, cudaStream_t stream);

}  // namespace bise::cuda
