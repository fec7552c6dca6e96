#include "backend/cuda/grouped_kernel.cuh"

namespace bise::cuda {

void start_grouped_e4m3(const GroupedLinear& linear, GroupedTask& task, cudaStream_t stream) {
  start_grouped<Operand::kE4M3>(linear, task, stream);
}

}  // namespace bise::cuda
