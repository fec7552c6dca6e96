// The first GPU's backend, for tests that skip where there is none.
#pragma once

#include <memory>

#include "backend/backend.h"
#include "base/error.h"

namespace bise {

// Null without a GPU, or when built without CUDA.
inline std::unique_ptr<Backend> cuda_or_null(bool float_residual = false) {
  try {
    return make_cuda_backend(0, float_residual);
  } catch (const Error&) {
    return nullptr;
  }
}

}  // namespace bise
