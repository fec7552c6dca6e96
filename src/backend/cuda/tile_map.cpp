// Tile maps are made by the driver, whose function is found at run time: nothing links libcuda.
#include <cuda.h>
#include <cuda_runtime_api.h>

#include "backend/cuda/device_memory.h"
#include "backend/cuda/streamed_linear.h"
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

}  // namespace

CUtensorMap tile_map(const void* data, int value_bytes, std::int64_t rows, std::int64_t stride,
                     int tile_rows) {
  static const Encode encode = find_encode();
  const cuuint64_t shape[] = {static_cast<cuuint64_t>(stride), static_cast<cuuint64_t>(rows)};
  const cuuint64_t row_bytes[] = {static_cast<cuuint64_t>(stride * value_bytes)};
  const cuuint32_t tile[] = {static_cast<cuuint32_t>(128 / value_bytes), static_cast<cuuint32_t>(tile_rows)};
  const cuuint32_t steps[] = {1, 1};
  CUtensorMap map;
  const CUresult status = encode(
      &map, value_bytes == 2 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 : CU_TENSOR_MAP_DATA_TYPE_UINT8, 2,
      const_cast<void*>(data), shape, row_bytes, tile, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
      CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (status != CUDA_SUCCESS)
    throw Error("the CUDA driver refuses a tile map")
        .got("status " + std::to_string(static_cast<int>(status)));
  return map;
}

}  // namespace bise::cuda
