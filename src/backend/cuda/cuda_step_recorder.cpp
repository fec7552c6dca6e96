#include "backend/cuda/cuda_step_recorder.h"

#include <algorithm>
#include <exception>

#include "backend/cuda/cuda_backend.h"
#include "base/check.h"

namespace bise {

std::int64_t recorded_sequences(std::int64_t sequences, std::int64_t most) {
  const std::int64_t step = sequences <= 4 ? 1 : sequences <= 256 ? 8 : 32;
  return std::min((sequences + step - 1) / step * step, most);
}

std::int64_t recorded_context(std::int64_t longest) {
  std::int64_t context = 512;
  while (context < longest) context *= 2;
  return context;
}

CudaStepRecorder::~CudaStepRecorder() {
  for (auto& [size, recorded] : recorded_)
    if (recorded.graph) cudaGraphExecDestroy(recorded.graph);
}

void CudaStepRecorder::run(const Batch& batch, KvCache& cache, std::int64_t most_rows,
                           const std::function<void()>& operations) {
  check(batch.tokens() == batch.sequences() && batch.tokens() > 0, "a recorded step has a token a sequence");
  const std::int64_t sequences = recorded_sequences(batch.sequences(), most_rows);
  const std::int64_t context =
      recorded_context(*std::max_element(batch.context_lengths.begin(), batch.context_lengths.end()));
  backend_.begin_padded_step(batch, cache, sequences, context);
  Recorded& recorded = recorded_[{dynamic_cast<CudaKvCache&>(cache).id(), sequences, context}];
  if (recorded.waits) return operations();
  if (!recorded.was_run || recorded.moves != buffer_moves()) {
    const std::uint64_t waits = backend_.waits();
    operations();
    recorded.was_run = true;
    recorded.waits = backend_.waits() != waits;
    recorded.moves = buffer_moves();
    if (recorded.graph) cudaGraphExecDestroy(recorded.graph);
    recorded.graph = nullptr;
    return;
  }
  if (!recorded.graph) capture(operations, recorded);
  cuda_check(cudaGraphLaunch(recorded.graph, backend_.stream()), "cudaGraphLaunch");
}

void CudaStepRecorder::capture(const std::function<void()>& operations, Recorded& recorded) {
  cudaGraph_t graph = nullptr;
  cuda_check(cudaStreamBeginCapture(backend_.stream(), cudaStreamCaptureModeThreadLocal),
             "cudaStreamBeginCapture");
  try {
    operations();
  } catch (...) {
    // The stream must leave its capture whatever happened.
    cudaStreamEndCapture(backend_.stream(), &graph);
    if (graph) cudaGraphDestroy(graph);
    throw;
  }
  cuda_check(cudaStreamEndCapture(backend_.stream(), &graph), "cudaStreamEndCapture");
  const cudaError_t status = cudaGraphInstantiate(&recorded.graph, graph, 0);
  cudaGraphDestroy(graph);
  cuda_check(status, "cudaGraphInstantiate");
}

}  // namespace bise
