// Mixtral's sparse MLP on CPU (Jiang et al. 2024, section 2.1): the rows are grouped by expert, each expert
// runs once over its rows, and a row adds its experts' results in ascending order of the expert.
//
// Threads: called from the backend's one thread. The row buffers grow to the largest step seen.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/cpu/aligned_buffer.h"
#include "backend/cpu/cpu_matrix.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/linear.h"
#include "backend/cpu/linear_input.h"
#include "base/thread_pool.h"

namespace bise {

class Experts {
 public:
  Experts(ThreadPool& pool, LinearScratch& scratch, Isa isa, bool float_inputs)
      : pool_(pool), scratch_(scratch), isa_(isa), float_inputs_(float_inputs), kernels_(row_kernels(isa)) {}

  // in: kNone rows; out [rows, hidden].
  void run(const CpuLinearInput& in, const ExpertWeights& weights, CpuMatrix& out);

 private:
  struct Choice {
    std::int64_t row;
    float weight;
  };
  void reserve(const CpuLinearInput& in, const ExpertWeights& weights, std::int64_t columns);
  void choose(const ExpertWeights& weights);
  void gather(const CpuLinearInput& in, const std::vector<Choice>& rows, InputEncoding encoding);

  ThreadPool& pool_;
  LinearScratch& scratch_;
  Isa isa_;
  bool float_inputs_;
  const RowKernels& kernels_;
  std::unique_ptr<CpuMatrix> logits_, result_;
  std::unique_ptr<CpuLinearInput> gathered_, middle_;
  std::vector<std::vector<Choice>> rows_of_expert_;
  std::vector<float> row_;
};

}  // namespace bise
