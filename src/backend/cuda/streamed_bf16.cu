#include "backend/cuda/streamed_kernel.cuh"

namespace bise::cuda {

void start_streamed_bf16(const StreamedTask& task, cudaStream_t stream) {
  start_streamed<Operand::kBf16, 0>(task, stream);
}

}  // namespace bise::cuda
