// Mixtral's sparse MLP on the device (Jiang et al. 2024, section 2.1). Rows are routed on the device
// (experts_route.h). Up to kGroupedRows rows all experts run in two launches that need no numbers on the host
// (grouped_linear.h), where their format is one of those; otherwise the host reads how many rows each expert
// has and runs one after the other. A row adds its experts' results in ascending order of the expert. In the
// two launches a row's result depends on that row alone.
//
// Belongs to the backend's thread. Workspace grows with the largest `max_rows` of an input.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "backend/cuda/cuda_matrix.h"
#include "backend/cuda/experts_route.h"

namespace bise {

class CudaExperts {
 public:
  // What it needs of the backend.
  struct Operations {
    std::function<void(const LinearInput&, const LinearWeight&, Matrix&)> linear;
    // out [rows, weight.rows()] from rows encoded as the weight's input_type().
    std::function<void(const cuda::Encoded&, std::int64_t rows, const CudaLinearWeight&, cuda::Values out)>
        multiply;
    std::function<void(const void* device, void* host, std::size_t bytes)> copy_to_host;
  };
  CudaExperts(Operations operations, cudaStream_t stream)
      : operations_(std::move(operations)), stream_(stream) {}

  // in: kNone rows; out [rows, hidden]. Throws Error for more than kMostExperts experts.
  void run(const CudaLinearInput& in, const ExpertWeights& weights, CudaMatrix& out);

 private:
  // The same matrix of every expert.
  struct Family {
    std::vector<const CudaLinearWeight*> weights;
    cuda::ExpertScales scales;
    bool is_grouped = false;    // one format that the grouped kernel takes
    bool one_encoding = false;  // of the inputs
    InputType input_type = InputType::kNone;
  };
  static Family family_of(const std::vector<std::unique_ptr<LinearWeight>>& weights, bool gated);

  cuda::Routing route(const CudaLinearInput& in, const ExpertWeights& weights, std::int64_t alignment);
  // Results [pairs, hidden] at the places of the routing, in results_.
  void run_grouped(std::int64_t rows, const Family& gate_up, const Family& down,
                   const cuda::Routing& routing);
  void run_each(const Family& gate_up, const Family& down, const cuda::Routing& routing, cuda::Values out);

  Operations operations_;
  cudaStream_t stream_;
  std::unique_ptr<CudaMatrix> logits_;
  // Inputs of gate and up, and of down; the first again where experts want them in different encodings.
  std::unique_ptr<CudaLinearInput> placed_, middle_, encoded_;
  DeviceBuffer routing_, ticket_, gate_up_, results_;
};

}  // namespace bise
