// Values on their way into a kTiles cache; processors with AVX-512 only.
#pragma once

#include <cstdint>

#include "tensor/float_types.h"

namespace bise {

// Writes 32 slots of a value matrix: out[d * block_size + t] = values[t * row_stride + d] for t < tokens, 0
// for the other slots; d < head_dim, a multiple of 16.
void store_value_tile(const float* values, std::int64_t row_stride, std::int64_t tokens,
                      std::int64_t head_dim, std::int64_t block_size, bf16* out);

}  // namespace bise
