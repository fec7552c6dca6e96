// Backend::add_rms_norm of many rows whose residual is bf16: half the bytes, and nothing to write where
// products have added to it by themselves.
#pragma once

#include "backend/cuda/cuda_kernels.h"

namespace bise::cuda {

struct ShortNorm {
  const void* delta = nullptr;  // bf16 [residual_rows, columns], or null
  void* residual = nullptr;     // bf16 [residual_rows, columns]
  std::int64_t residual_rows = 0;
  const float* weight = nullptr;
  float eps = 0, static_scale = 0;
  const std::int32_t* rows = nullptr;  // [count] of the residual's rows, or null: all
  std::int64_t count = 0;
};

// Whether rows of this width are.
bool supports_short_residual(std::int64_t columns);
void add_rms_norm(const ShortNorm& norm, Encoded out, cudaStream_t stream);

}  // namespace bise::cuda
