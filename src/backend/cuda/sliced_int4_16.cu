#include "backend/cuda/sliced_int4.cuh"

namespace bise::cuda {

void start_sliced_int4_16(const SlicedInt4Task& task, int blocks, int bytes, cudaStream_t stream) {
  start_sliced_int4<2>(task, blocks, bytes, stream);
}

}  // namespace bise::cuda
