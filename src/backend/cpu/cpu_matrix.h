// The CPU backend's Matrix: row-major float32, rows back to back, 64-byte aligned. Made once by
// make_matrix; operations only set how many rows are in use.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "backend/cpu/aligned_buffer.h"
#include "base/check.h"

namespace bise {

class CpuMatrix final : public Matrix {
 public:
  CpuMatrix(std::int64_t max_rows, std::int64_t columns)
      : Matrix(max_rows, columns), values_(max_rows * columns) {}

  void set_rows(std::int64_t rows) {
    check(rows >= 0 && rows <= max_rows_, "a matrix holds the rows of a step");
    rows_ = rows;
  }
  float* data() { return values_.data(); }
  const float* data() const { return values_.data(); }
  float* row(std::int64_t row) { return values_.data() + row * columns_; }
  const float* row(std::int64_t row) const { return values_.data() + row * columns_; }

 private:
  AlignedBuffer<float> values_;
};

}  // namespace bise
