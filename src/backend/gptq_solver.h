// GPTQ (Frantar et al. 2022) where a device does all of it: Hessians, factors and weights stay in its memory,
// codes come back. quantize/device_gptq.h decides what is solved with which scales and in which order; a
// backend without a solver leaves the arithmetic to quantize/gptq.h, which defines the result: from the same
// Hessian a solver gives the same codes but where a rounding error decides between two.
//
// Ownership and threads as in backend.h: made by a backend, used with it and on its thread; the backend
// outlives solver, Hessians, factors and matrices.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "tensor/scheme.h"
#include "tensor/tensor.h"

namespace bise {

// The smallest and the largest of some weights and of zero.
struct ValueRange {
  float low = 0, high = 0;
};

// The sum of 2 X^T X over the inputs X that it was shown. [columns, columns], float32.
class DeviceHessian {
 public:
  virtual ~DeviceHessian() = default;
  std::int64_t columns() const { return columns_; }

 protected:
  explicit DeviceHessian(std::int64_t columns) : columns_(columns) {}
  std::int64_t columns_;
};

// The upper Cholesky factor U of a Hessian's inverse, H^-1 = U^T U, and the order of the columns.
class DeviceFactor {
 public:
  virtual ~DeviceFactor() = default;
  std::int64_t columns() const { return columns_; }
  // The Hessian was not positive definite; U is the identity.
  bool round_to_nearest() const { return round_to_nearest_; }

 protected:
  explicit DeviceFactor(std::int64_t columns) : columns_(columns) {}
  std::int64_t columns_;
  bool round_to_nearest_ = false;
};

// A weight [rows, columns] as the checkpoint has it.
class DeviceMatrix {
 public:
  virtual ~DeviceMatrix() = default;
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }

 protected:
  DeviceMatrix(std::int64_t rows, std::int64_t columns) : rows_(rows), columns_(columns) {}
  std::int64_t rows_, columns_;
};

struct FactorTask {
  float divisor = 1;                    // of the Hessian, before anything else
  std::span<const std::int32_t> order;  // [columns] order[i] = the column that is quantized i-th
  float damping = 0;                    // added to the diagonal, where a zero has become 1
};

struct ColumnsTask {
  Scheme scheme;                            // integers or e4m3
  std::int64_t groups = 1;                  // scales of a row
  std::span<const float> scale;             // [rows * groups]
  std::span<const std::int8_t> zero_point;  // the same; empty when symmetric
  // What a code stands for is rounded to this type before its error is taken: F32, BF16 or F16.
  DType product_dtype = DType::kF32;
  // Once more at the end: the codes of what the codes stand for, every step rounded to product_dtype
  // (quantize/gptq.h).
  bool derive_codes_again = false;
};

struct ColumnsResult {
  // I32 packed as pack_rows does it where the inputs stay floats; else I8, or F8_E4M3, [rows, columns].
  Tensor codes;
  double loss = 0;             // sum of (w - q)^2 / (2 U_ii^2)
  double squared_error = 0;    // sum of (w - q)^2 over the weights as they were
  double squared_weights = 0;  // sum of w^2
};

class GptqSolver {
 public:
  virtual ~GptqSolver() = default;

  // Zero.
  virtual std::unique_ptr<DeviceHessian> make_hessian(std::int64_t columns) = 0;
  // hessian += 2 X^T X for the rows X of `in`, which are not quantized.
  virtual void accumulate(const LinearInput& in, DeviceHessian& hessian) = 0;
  virtual std::vector<float> diagonal(const DeviceHessian& hessian) = 0;
  // [columns, columns], both triangles.
  virtual std::vector<float> read(const DeviceHessian& hessian) = 0;

  virtual std::unique_ptr<DeviceFactor> factor(const DeviceHessian& hessian, const FactorTask& task) = 0;

  // `weight` BF16, F16 or F32.
  virtual std::unique_ptr<DeviceMatrix> load(const Tensor& weight) = 0;
  // [rows * columns / group_columns] of every run of `group_columns` weights, which divides the columns.
  virtual std::vector<ValueRange> ranges(const DeviceMatrix& matrix, std::int64_t group_columns) = 0;
  // The column loop: each column in turn is rounded and its error spread over those that follow. Columns
  // whose diagonal was zero count as zero.
  virtual ColumnsResult quantize(const DeviceMatrix& matrix, const DeviceFactor& factor,
                                 const ColumnsTask& task) = 0;
};

}  // namespace bise
