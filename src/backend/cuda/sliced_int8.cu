#include "backend/cuda/sliced_kernel.cuh"

namespace bise::cuda {

void start_sliced_int8(const SlicedTask& task, int tile_rows, cudaStream_t stream) {
  start_sliced<Operand::kInt8>(task, tile_rows, stream);
}

}  // namespace bise::cuda
