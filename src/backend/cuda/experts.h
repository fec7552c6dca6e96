// Mixtral's sparse MLP on the device (Jiang et al. 2024, section 2.1): the router's choices are made on the
// host, each expert runs once over its rows, and a row adds its experts' results in ascending order of the
// expert.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "backend/cuda/cuda_matrix.h"

namespace bise {

class CudaExperts {
 public:
  // linear and gated_linear of the backend.
  struct Operations {
    std::function<void(const LinearInput&, const LinearWeight&, Matrix&)> linear;
    std::function<void(const LinearInput&, const LinearWeight&, InputEncoding, LinearInput&)> gated_linear;
    std::function<void(const Matrix&, std::span<float>)> read;
  };
  CudaExperts(Operations operations, cudaStream_t stream)
      : operations_(std::move(operations)), stream_(stream) {}

  // in: kNone rows; out [rows, hidden].
  void run(const CudaLinearInput& in, const ExpertWeights& weights, CudaMatrix& out);

 private:
  void choose(const ExpertWeights& weights, std::int64_t rows);

  Operations operations_;
  cudaStream_t stream_;
  std::unique_ptr<CudaMatrix> logits_, result_, sum_;
  std::unique_ptr<CudaLinearInput> gathered_, middle_;
  std::vector<float> host_logits_;
  std::vector<std::vector<std::int32_t>> rows_of_expert_;
  std::vector<std::vector<float>> weights_of_expert_;
  DeviceBuffer rows_, row_weights_;
};

}  // namespace bise
