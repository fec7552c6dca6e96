#include "backend/cuda/sliced_int4.cuh"

namespace bise::cuda {

void start_sliced_int4_8(const SlicedInt4Task& task, int blocks, int bytes, cudaStream_t stream) {
  start_sliced_int4<1>(task, blocks, bytes, stream);
}

}  // namespace bise::cuda
