// The attention kernel for BlockLayout::kTiles; processors with Isa::kAmx only.
#pragma once

#include <memory>

#include "backend/cpu/attention.h"

namespace bise {

// For a cache of kBF16 or kF8E4M3.
std::unique_ptr<AttentionKernel> make_tile_attention(DType dtype);

}  // namespace bise
