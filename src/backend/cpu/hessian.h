// X^T X for GPTQ (Frantar et al. 2022, eq. 2), the upper triangle, added to a float32 matrix of the caller.
// Tiles of the result go to threads; a tile is summed over the rows in their order, so the result does not
// depend on the number of threads.
#pragma once

#include <span>

#include "backend/cpu/aligned_buffer.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/linear_input.h"
#include "base/thread_pool.h"

namespace bise {

class Hessian {
 public:
  Hessian(ThreadPool& pool, Isa isa) : pool_(pool), isa_(isa) {}

  // hessian [columns, columns] += 2 X^T X for the decoded rows of `in`.
  void accumulate(const CpuLinearInput& in, std::span<float> hessian);

 private:
  void accumulate_float(const float* x, std::int64_t stride, const CpuLinearInput& in, float* hessian);

  ThreadPool& pool_;
  Isa isa_;
  // Grown to the largest input seen.
  AlignedBuffer<float> rows_;         // decoded
  AlignedBuffer<std::byte> scratch_;  // packed into tiles
};

}  // namespace bise
