#include "backend/cpu/kernels.h"

#include "backend/cpu/attention_amx.h"
#include "base/check.h"

namespace bise {

const RowKernels& row_kernels(Isa isa) {
  switch (isa) {
    case Isa::kScalar: return kScalarKernels;
    case Isa::kAvx2: return kAvx2Kernels;
    case Isa::kAvx512:
    case Isa::kAmx: return kAvx512Kernels;
  }
  check(false, "an instruction set has kernels");
  return kScalarKernels;
}

bool has_tile_attention(Isa isa, const KvCacheShape& cache) {
  return isa == Isa::kAmx && cache.dtype != DType::kF32 && cache.block_size % 32 == 0;
}

std::unique_ptr<AttentionKernel> make_attention_kernel(Isa isa, BlockLayout layout, DType dtype) {
  if (layout == BlockLayout::kTiles) return make_tile_attention(dtype);
  return row_kernels(isa).make_attention(dtype);
}

}  // namespace bise
