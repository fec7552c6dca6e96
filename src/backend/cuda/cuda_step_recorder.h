// Decode steps as CUDA graphs, one for each size of step: number of sequences and longest context, both
// rounded up. The first step of a size runs as it is, which lets workspaces grow and libraries choose their
// kernels; the second is captured; later ones are replayed. A graph holds addresses, so it is captured anew
// after any buffer has moved. Steps that wait for the device on their way (CudaBackend::waits) are never
// captured.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <tuple>

#include "backend/backend.h"

namespace bise {

class CudaBackend;

// Sequences of a recorded step for `sequences` of them: all numbers up to 4, then multiples of 8, of 32
// beyond 256; at most `most`, which is at least `sequences`.
std::int64_t recorded_sequences(std::int64_t sequences, std::int64_t most);
// The longest context that a step with `longest` is recorded for: powers of two from 512.
std::int64_t recorded_context(std::int64_t longest);

class CudaStepRecorder final : public StepRecorder {
 public:
  explicit CudaStepRecorder(CudaBackend& backend) : backend_(backend) {}
  ~CudaStepRecorder() override;
  CudaStepRecorder(const CudaStepRecorder&) = delete;
  CudaStepRecorder& operator=(const CudaStepRecorder&) = delete;

  void run(const Batch& batch, KvCache& cache, std::int64_t most_rows,
           const std::function<void()>& operations) override;

 private:
  struct Recorded {
    cudaGraphExec_t graph = nullptr;
    std::uint64_t moves = 0;  // buffer_moves() when it was run or captured
    bool was_run = false, waits = false;
  };
  void capture(const std::function<void()>& operations, Recorded& recorded);

  CudaBackend& backend_;
  // By cache, sequences and longest context.
  std::map<std::tuple<std::uint64_t, std::int64_t, std::int64_t>, Recorded> recorded_;
};

}  // namespace bise
