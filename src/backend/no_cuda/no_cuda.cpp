// The CUDA backend of a build without CUDA.
#include "backend/backend.h"
#include "base/error.h"

namespace bise {

bool built_with_cuda() {
  return false;
}

std::unique_ptr<Backend> make_cuda_backend(int, bool) {
  throw Error(
      "this bise was built without CUDA: build it with `cmake --preset cuda && cmake --build --preset cuda`, "
      "or use the CPU backend");
}

}  // namespace bise
