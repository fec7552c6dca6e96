#include "backend/cuda/streamed_kernel.cuh"

namespace bise::cuda {

void start_streamed_int4(const StreamedTask& task, cudaStream_t stream) {
  switch (task.panels.group_columns) {
    case 32: return start_streamed<Operand::kBf16, 2>(task, stream);
    case 64: return start_streamed<Operand::kBf16, 4>(task, stream);
    default: return start_streamed<Operand::kBf16, 8>(task, stream);
  }
}

}  // namespace bise::cuda
