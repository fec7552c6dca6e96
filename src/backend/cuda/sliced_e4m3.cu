#include "backend/cuda/sliced_kernel.cuh"

namespace bise::cuda {

void start_sliced_e4m3(const SlicedTask& task, int tile_rows, cudaStream_t stream) {
  start_sliced<Operand::kE4M3>(task, tile_rows, stream);
}

}  // namespace bise::cuda
