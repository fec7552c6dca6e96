// X^T X of bfloat16 rows on AMX tiles; processors with Isa::kAmx only.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/thread_pool.h"

namespace bise {

// Bytes of scratch for `rows` rows.
std::int64_t syrk_scratch_bytes(std::int64_t rows, std::int64_t columns);

// hessian[i][j] += 2 * sum over r of x[r][i] * x[r][j] for i <= j < columns. Row r of x starts at x + r *
// row_bytes and is zero (and readable) from `columns` up to a multiple of 32 columns. scratch is 64-byte
// aligned.
void add_syrk(ThreadPool& pool, const std::byte* x, std::int64_t row_bytes, std::int64_t rows,
              std::int64_t columns, std::byte* scratch, float* hessian);

}  // namespace bise
