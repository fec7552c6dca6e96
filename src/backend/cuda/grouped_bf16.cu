#include "backend/cuda/grouped_kernel.cuh"

namespace bise::cuda {

void start_grouped_bf16(const GroupedLinear& linear, GroupedTask& task, cudaStream_t stream) {
  start_grouped<Operand::kBf16>(linear, task, stream);
}

}  // namespace bise::cuda
