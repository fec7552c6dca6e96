#include "backend/cuda/streamed_kernel.cuh"

namespace bise::cuda {

void start_streamed_int8(const StreamedTask& task, cudaStream_t stream) {
  start_streamed<Operand::kInt8, 0>(task, stream);
}

}  // namespace bise::cuda
