// GPTQ on the device (backend/gptq_solver.h), on the backend's stream and thread.
#pragma once

#include <memory>
#include <vector>

#include "backend/cuda/cusolver.h"
#include "backend/cuda/gptq_kernels.h"
#include "backend/cuda/gptq_products.h"
#include "backend/cuda/uploader.h"
#include "backend/gptq_solver.h"

namespace bise {

class CudaGptqSolver final : public GptqSolver {
 public:
  // Both outlive it.
  CudaGptqSolver(Uploader& uploader, cudaStream_t stream) : uploader_(uploader), stream_(stream) {}

  std::unique_ptr<DeviceHessian> make_hessian(std::int64_t columns) override;
  void accumulate(const LinearInput& in, DeviceHessian& hessian) override;
  std::vector<float> diagonal(const DeviceHessian& hessian) override;
  std::vector<float> read(const DeviceHessian& hessian) override;
  std::unique_ptr<DeviceFactor> factor(const DeviceHessian& hessian, const FactorTask& task) override;
  std::unique_ptr<DeviceMatrix> load(const Tensor& weight) override;
  std::vector<ValueRange> ranges(const DeviceMatrix& matrix, std::int64_t group_columns) override;
  ColumnsResult quantize(const DeviceMatrix& matrix, const DeviceFactor& factor,
                         const ColumnsTask& task) override;

 private:
  void copy_to_host(void* host, const void* device, std::size_t bytes);
  void copy_to_device(DeviceBuffer& device, const void* host, std::size_t bytes);

  Uploader& uploader_;
  cudaStream_t stream_;
  GptqProducts products_;
  std::unique_ptr<Cusolver> cusolver_;  // opened by the first factor
  // Of one factor, and of one matrix on its way through the columns.
  DeviceBuffer reversed_, bad_, scales_, zero_points_, weight_, codes_, errors_, losses_, ranges_, out_;
};

}  // namespace bise
