// Cholesky factors by cuSOLVER, which is opened when it is first needed: it and what it brings along are
// several hundred MB that a server has no use for. Belongs to the backend's thread.
#pragma once

#include <cusolverDn.h>

#include <cstdint>
#include <vector>

#include "backend/cuda/device_memory.h"

namespace bise {

class Cusolver {
 public:
  // Throws Error where the library is not installed. Work goes to `stream`.
  explicit Cusolver(cudaStream_t stream);
  ~Cusolver();
  Cusolver(const Cusolver&) = delete;
  Cusolver& operator=(const Cusolver&) = delete;

  // Replaces the lower triangle of `matrix` [size, size], float64 column-major in device memory, by its
  // Cholesky factor L, A = L L^T. Waits, and returns false where A is not positive definite.
  bool factor(double* matrix, std::int64_t size);

 private:
  struct Functions;

  const Functions& functions_;
  cudaStream_t stream_;
  cusolverDnHandle_t handle_ = nullptr;
  cusolverDnParams_t parameters_ = nullptr;
  DeviceBuffer workspace_, info_;
  std::vector<char> host_workspace_;
};

}  // namespace bise
