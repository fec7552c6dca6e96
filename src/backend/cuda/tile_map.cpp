// Tile maps are made by the driver, whose function is found at run time: nothing links libcuda.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <array>

#include "backend/cuda/device_memory.h"
#include "backend/cuda/grouped_linear.h"
#include "backend/cuda/streamed_linear.h"
#include "backend/cuda/tile_attention.h"
#include "base/error.h"

namespace bise::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = {};
  cuda_check(
      cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found),
      "cuTensorMapEncodeTiled");
  if (found != cudaDriverEntryPointSuccess)
    throw Error("the CUDA driver is too old").expected("CUDA 12 or later");
  return reinterpret_cast<Encode>(function);
}

// Without a wider promotion: with 256 bytes weights are read 4% slower (H200, 4096 and 14336 columns of
// e4m3).
template <std::size_t kDimensions>
CUtensorMap encode_map(const void* data, int value_bytes, const std::array<cuuint64_t, kDimensions>& shape,
                       const std::array<cuuint64_t, kDimensions - 1>& strides,
                       const std::array<cuuint32_t, kDimensions>& tile,
                       CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B) {
  static const Encode encode = find_encode();
  std::array<cuuint32_t, kDimensions> steps;
  steps.fill(1);
  CUtensorMap map;
  const CUresult status =
      encode(&map, value_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8,
             kDimensions, const_cast<void*>(data), shape.data(), strides.data(), tile.data(), steps.data(),
             CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle, CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw Error("the CUDA driver refuses a tile map")
        .got("status " + std::to_string(static_cast<int>(status)));
  return map;
}

}  // namespace

CUtensorMap tile_map(const void* data, int value_bytes, std::int64_t rows, std::int64_t stride,
                     int tile_rows) {
  const auto row_bytes = static_cast<cuuint64_t>(stride * value_bytes);
  return encode_map<2>(data, value_bytes, {static_cast<cuuint64_t>(stride), static_cast<cuuint64_t>(rows)},
                       {row_bytes},
                       {static_cast<cuuint32_t>(128 / value_bytes), static_cast<cuuint32_t>(tile_rows)});
}

CUtensorMap gated_tile_map(const void* data, int value_bytes, std::int64_t half_rows, std::int64_t stride,
                           int tile_rows) {
  const auto row_bytes = static_cast<cuuint64_t>(stride * value_bytes);
  const auto rows = static_cast<cuuint64_t>(half_rows);
  return encode_map<4>(
      data, value_bytes, {static_cast<cuuint64_t>(stride), 8, 2, rows / 8},
      {row_bytes, rows * row_bytes, 8 * row_bytes},
      {static_cast<cuuint32_t>(128 / value_bytes), 8, 2, static_cast<cuuint32_t>(tile_rows / 16)});
}

CUtensorMap head_tile_map(const void* rows, std::int64_t count, std::int64_t columns, std::int64_t head_dim,
                          int tile_heads, int tile_rows) {
  return encode_map<3>(rows, 2,
                       {static_cast<cuuint64_t>(head_dim), static_cast<cuuint64_t>(columns / head_dim),
                        static_cast<cuuint64_t>(count)},
                       {static_cast<cuuint64_t>(head_dim * 2), static_cast<cuuint64_t>(columns * 2)},
                       {64, static_cast<cuuint32_t>(tile_heads), static_cast<cuuint32_t>(tile_rows)});
}

CUtensorMap code_tile_map(const void* codes, std::int64_t rows, std::int64_t stride, int tile_columns,
                          int tile_rows) {
  return encode_map<2>(codes, 1, {static_cast<cuuint64_t>(stride), static_cast<cuuint64_t>(rows)},
                       {static_cast<cuuint64_t>(stride)},
                       {static_cast<cuuint32_t>(tile_columns), static_cast<cuuint32_t>(tile_rows)},
                       CU_TENSOR_MAP_SWIZZLE_NONE);
}

}  // namespace bise::cuda
