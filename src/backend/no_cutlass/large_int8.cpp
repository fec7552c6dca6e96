// What stands for large_int8.cu in a build without CUTLASS.
#include "backend/cuda/large_int8.h"

namespace bise::cuda {

bool supports_large_int8(std::int64_t) {
  return false;
}

bool large_int8(const LargeInt8&, cudaStream_t) {
  return false;
}

}  // namespace bise::cuda
