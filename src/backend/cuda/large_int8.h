// Products of many rows of int8 codes that leave scaled: out[r, n] = bf16(sum over k of in[r, k] weight[n, k]
// * row_scales[r] * column_scales[n] + what stands in out[r, n], if it `adds`), sums exact in int32. By
// CUTLASS; cuBLASLt has no such epilogue, and its int32 sums would pass through memory twice.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace bise::cuda {

struct LargeInt8 {
  const void *in = nullptr, *weight = nullptr;  // row-major with `stride` codes a row
  const float *row_scales = nullptr, *column_scales = nullptr;
  std::int64_t rows = 0, columns = 0, stride = 0;
  void* out = nullptr;  // bf16 [rows, columns]
  bool adds = false;
};

// Whether the widths suit it.
bool supports_large_int8(std::int64_t columns);
// False, and nothing done, where CUTLASS refuses.
bool large_int8(const LargeInt8& product, cudaStream_t stream);

}  // namespace bise::cuda
