// The attention kernel for BlockLayout::kTiles; processors with Isa::kAmx only.
#pragma once

#include <memory>

#include "backend/cpu/attention.h"

namespace bise {

std::unique_ptr<AttentionKernel> make_tile_attention();

}  // namespace bise
