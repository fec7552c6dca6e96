#include "backend/cuda/sliced_kernel.cuh"

namespace bise::cuda {

void start_sliced_bf16(const SlicedTask& task, int tile_rows, cudaStream_t stream) {
  start_sliced<Operand::kBf16>(task, tile_rows, stream);
}

}  // namespace bise::cuda
