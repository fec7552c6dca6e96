#include "backend/cuda/cuda_gptq_solver.h"

#include <cuda_runtime.h>

#include <algorithm>

#include "backend/cuda/cuda_matrix.h"
#include "base/check.h"

namespace bise {
namespace {

using cuda::kGptqBlock;
using cuda::padded;

class CudaHessian final : public DeviceHessian {
 public:
  CudaHessian(std::int64_t columns, cudaStream_t stream)
      : DeviceHessian(columns), values_(static_cast<std::size_t>(width() * width()) * sizeof(float)) {
    cuda_check(cudaMemsetAsync(values(), 0, values_.size(), stream), "cudaMemset");
  }
  std::int64_t width() const { return padded(columns_); }
  float* values() const { return values_.as<float>(); }

 private:
  DeviceBuffer values_;  // [width, width], the upper triangle at least
};

class CudaFactor final : public DeviceFactor {
 public:
  explicit CudaFactor(std::int64_t columns)
      : DeviceFactor(columns),
        upper(static_cast<std::size_t>(columns * width()) * sizeof(float)),
        order(static_cast<std::size_t>(columns) * sizeof(std::int32_t)),
        diagonal(static_cast<std::size_t>(columns) * sizeof(float)) {}
  std::int64_t width() const { return padded(columns_); }
  void fall_back() { round_to_nearest_ = true; }

  const DeviceBuffer upper;     // [columns, width]
  const DeviceBuffer order;     // [columns]
  const DeviceBuffer diagonal;  // [columns] of the Hessian, before damping
};

cuda::StoredFloat stored_float(DType dtype) {
  switch (dtype) {
    case DType::kBF16: return cuda::StoredFloat::kBf16;
    case DType::kF16: return cuda::StoredFloat::kF16;
    default: check(dtype == DType::kF32, "a weight is BF16, F16 or F32"); return cuda::StoredFloat::kF32;
  }
}

class CudaStoredMatrix final : public DeviceMatrix {
 public:
  CudaStoredMatrix(const Tensor& weight, Uploader& uploader)
      : DeviceMatrix(weight.dim(0), weight.dim(1)),
        type_(stored_float(weight.dtype())),
        values_(weight.bytes().size()) {
    uploader.upload(values_.as<void>(), weight.bytes());
  }
  cuda::StoredWeight weight() const { return {values_.as<void>(), type_, rows_, columns_}; }

 private:
  cuda::StoredFloat type_;
  DeviceBuffer values_;
};

// Whether codes are stored as words (quantize/rtn.h store_codes).
bool is_packed(const Scheme& scheme) {
  return scheme.type == WeightType::kInt && scheme.input == InputType::kNone;
}

Tensor code_tensor(const Scheme& scheme, std::int64_t rows, std::int64_t columns) {
  if (is_packed(scheme)) return Tensor::allocate(DType::kI32, {rows, (columns * scheme.num_bits + 31) / 32});
  return Tensor::allocate(scheme.type == WeightType::kFloat ? DType::kF8E4M3 : DType::kI8, {rows, columns});
}

}  // namespace

void CudaGptqSolver::copy_to_host(void* host, const void* device, std::size_t bytes) {
  cuda_check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "copying to the host");
  cuda_check(cudaStreamSynchronize(stream_), "waiting for the device");
}

void CudaGptqSolver::copy_to_device(DeviceBuffer& device, const void* host, std::size_t bytes) {
  device.grow(bytes);
  uploader_.upload(device.as<void>(), {static_cast<const std::byte*>(host), bytes});
}

std::unique_ptr<DeviceHessian> CudaGptqSolver::make_hessian(std::int64_t columns) {
  return std::make_unique<CudaHessian>(columns, stream_);
}

void CudaGptqSolver::accumulate(const LinearInput& in, DeviceHessian& hessian) {
  auto& sums = dynamic_cast<CudaHessian&>(hessian);
  check(in.type() == InputType::kNone && in.columns() == hessian.columns(),
        "a Hessian is of inputs that are not quantized");
  const cuda::Encoded rows = dynamic_cast<const CudaLinearInput&>(in).encoded();
  products_.add_squares(rows.codes, in.rows(), sums.width(), sums.values(), stream_);
}

std::vector<float> CudaGptqSolver::diagonal(const DeviceHessian& hessian) {
  const auto& sums = dynamic_cast<const CudaHessian&>(hessian);
  std::vector<float> values(static_cast<std::size_t>(sums.columns()));
  cuda_check(cudaMemcpy2DAsync(values.data(), sizeof(float), sums.values(),
                               static_cast<std::size_t>(sums.width() + 1) * sizeof(float), sizeof(float),
                               values.size(), cudaMemcpyDeviceToHost, stream_),
             "copying a diagonal");
  cuda_check(cudaStreamSynchronize(stream_), "waiting for the device");
  return values;
}

std::vector<float> CudaGptqSolver::read(const DeviceHessian& hessian) {
  const auto& sums = dynamic_cast<const CudaHessian&>(hessian);
  const auto columns = static_cast<std::size_t>(sums.columns());
  std::vector<float> values(columns * columns);
  cuda_check(cudaMemcpy2DAsync(values.data(), columns * sizeof(float), sums.values(),
                               static_cast<std::size_t>(sums.width()) * sizeof(float),
                               columns * sizeof(float), columns, cudaMemcpyDeviceToHost, stream_),
             "copying a Hessian");
  cuda_check(cudaStreamSynchronize(stream_), "waiting for the device");
  for (std::size_t i = 0; i < columns; ++i)
    for (std::size_t j = 0; j < i; ++j) values[i * columns + j] = values[j * columns + i];
  return values;
}

std::unique_ptr<DeviceFactor> CudaGptqSolver::factor(const DeviceHessian& hessian, const FactorTask& task) {
  const auto& sums = dynamic_cast<const CudaHessian&>(hessian);
  const std::int64_t columns = sums.columns();
  check(static_cast<std::int64_t>(task.order.size()) == columns, "the order has all columns");
  if (!cusolver_) cusolver_ = std::make_unique<Cusolver>(stream_);
  auto factor = std::make_unique<CudaFactor>(columns);
  bise::copy_to_device(factor->order.as<void>(), task.order.data(), task.order.size_bytes());
  cuda_check(cudaMemcpy2DAsync(factor->diagonal.as<void>(), sizeof(float), sums.values(),
                               static_cast<std::size_t>(sums.width() + 1) * sizeof(float), sizeof(float),
                               static_cast<std::size_t>(columns), cudaMemcpyDeviceToDevice, stream_),
             "copying a diagonal");
  reversed_.grow(static_cast<std::size_t>(columns * columns) * sizeof(double));
  cuda::reversed_hessian(sums.values(), sums.width(), columns, factor->order.as<std::int32_t>(), task.divisor,
                         task.damping, reversed_.as<double>(), stream_);
  check_launch("ordering a Hessian");
  bool is_good = cusolver_->factor(reversed_.as<double>(), columns);
  if (is_good) {
    products_.invert_lower(reversed_.as<double>(), columns, stream_);
    int bad = 0;
    bad_.grow(sizeof bad);
    cuda_check(cudaMemsetAsync(bad_.as<void>(), 0, sizeof bad, stream_), "cudaMemset");
    cuda::upper_factor(reversed_.as<double>(), columns, factor->width(), factor->upper.as<float>(),
                       bad_.as<int>(), stream_);
    check_launch("turning a factor");
    copy_to_host(&bad, bad_.as<void>(), sizeof bad);
    is_good = bad == 0;
  }
  if (!is_good) {
    factor->fall_back();
    cuda::identity(columns, factor->width(), factor->upper.as<float>(), stream_);
    check_launch("identity");
  }
  return factor;
}

std::unique_ptr<DeviceMatrix> CudaGptqSolver::load(const Tensor& weight) {
  return std::make_unique<CudaStoredMatrix>(weight, uploader_);
}

std::vector<ValueRange> CudaGptqSolver::ranges(const DeviceMatrix& matrix, std::int64_t group_columns) {
  check(group_columns > 0 && matrix.columns() % group_columns == 0, "groups fill a row");
  const std::int64_t groups = matrix.rows() * matrix.columns() / group_columns;
  std::vector<ValueRange> values(static_cast<std::size_t>(groups));
  static_assert(sizeof(ValueRange) == sizeof(float2));
  ranges_.grow(values.size() * sizeof(ValueRange));
  cuda::weight_ranges(dynamic_cast<const CudaStoredMatrix&>(matrix).weight(), group_columns,
                      ranges_.as<float2>(), stream_);
  check_launch("ranges of a weight");
  copy_to_host(values.data(), ranges_.as<void>(), values.size() * sizeof(ValueRange));
  return values;
}

ColumnsResult CudaGptqSolver::quantize(const DeviceMatrix& matrix, const DeviceFactor& factor,
                                       const ColumnsTask& task) {
  const cuda::StoredWeight stored = dynamic_cast<const CudaStoredMatrix&>(matrix).weight();
  const auto& solved = dynamic_cast<const CudaFactor&>(factor);
  const std::int64_t rows = stored.rows, columns = stored.columns, width = solved.width();
  check(columns == solved.columns(), "the factor is of the matrix's columns");
  check(static_cast<std::int64_t>(task.scale.size()) == rows * task.groups && columns % task.groups == 0,
        "there is a scale for each group");
  copy_to_device(scales_, task.scale.data(), task.scale.size_bytes());
  if (!task.zero_point.empty()) copy_to_device(zero_points_, task.zero_point.data(), task.zero_point.size());
  const cuda::CodeRule rule{.is_e4m3 = task.scheme.type == WeightType::kFloat,
                            .bits = task.scheme.num_bits,
                            .groups = task.groups,
                            .group_columns = columns / task.groups,
                            .scales = scales_.as<float>(),
                            .zero_points = task.zero_point.empty() ? nullptr : zero_points_.as<std::int8_t>(),
                            .product = stored_float(task.product_dtype)};
  const auto count = static_cast<std::size_t>(rows * width);
  weight_.grow(count * sizeof(float));
  codes_.grow(count);
  errors_.grow(static_cast<std::size_t>(rows * kGptqBlock) * sizeof(float));
  // [rows] losses, then [rows, 2] sums of squares.
  std::vector<double> sums(static_cast<std::size_t>(rows) * 3);
  losses_.grow(sums.size() * sizeof(double));
  cuda_check(cudaMemsetAsync(losses_.as<void>(), 0, sums.size() * sizeof(double), stream_), "cudaMemset");
  const auto* order = solved.order.as<std::int32_t>();
  const auto* upper = solved.upper.as<float>();
  auto* weight = weight_.as<float>();
  cuda::ordered_weight(stored, order, solved.diagonal.as<float>(), width, weight, stream_);
  for (std::int64_t begin = 0; begin < columns; begin += kGptqBlock) {
    cuda::quantize_columns(weight, rows, columns, width, begin, upper, order, rule, codes_.as<std::uint8_t>(),
                           errors_.as<float>(), losses_.as<double>(), stream_);
    const std::int64_t rest = begin + kGptqBlock;
    if (rest < columns && !factor.round_to_nearest())
      products_.subtract(errors_.as<float>(), rows, kGptqBlock, upper + begin * width + rest, width - rest,
                         width, weight + rest, stream_);
  }
  ColumnsResult result;
  result.codes = code_tensor(task.scheme, rows, columns);
  out_.grow(result.codes.bytes().size());
  cuda::finish_codes(stored, width, order, rule, codes_.as<std::uint8_t>(), task.derive_codes_again,
                     is_packed(task.scheme), out_.as<void>(), losses_.as<double>() + rows, stream_);
  check_launch("quantizing columns");
  copy_to_host(sums.data(), losses_.as<void>(), sums.size() * sizeof(double));
  copy_to_host(const_cast<std::byte*>(result.codes.bytes().data()), out_.as<void>(),
               result.codes.bytes().size());
  for (std::size_t row = 0; row < static_cast<std::size_t>(rows); ++row) {
    result.loss += sums[row];
    result.squared_error += sums[static_cast<std::size_t>(rows) + 2 * row];
    result.squared_weights += sums[static_cast<std::size_t>(rows) + 2 * row + 1];
  }
  return result;
}

}  // namespace bise
