#include "backend/cuda/grouped_kernel.cuh"

namespace bise::cuda {

void start_grouped_int8(const GroupedLinear& linear, GroupedTask& task, cudaStream_t stream) {
  start_grouped<Operand::kInt8>(linear, task, stream);
}

}  // namespace bise::cuda
