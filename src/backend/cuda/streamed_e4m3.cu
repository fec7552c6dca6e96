#include "backend/cuda/streamed_kernel.cuh"

namespace bise::cuda {

void start_streamed_e4m3(const StreamedTask& task, cudaStream_t stream) {
  start_streamed<Operand::kE4M3, 0>(task, stream);
}

}  // namespace bise::cuda
