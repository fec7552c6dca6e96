// The rotary embedding of one pair of a head's dimensions: the same arithmetic wherever queries and keys
// turn.
#pragma once

#include <cuda_runtime.h>

namespace bise::cuda {

// Dimensions (i, i + head_dim / 2), turned by the angle of this cosine and sine.
__device__ inline float2 turned(float x, float y, float cosine, float sine) {
  return {__fmaf_rn(x, cosine, -__fmul_rn(y, sine)), __fmaf_rn(y, cosine, __fmul_rn(x, sine))};
}

}  // namespace bise::cuda
