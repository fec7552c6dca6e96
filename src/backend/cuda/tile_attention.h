// Causal attention over the paged cache on the tensor cores, for heads of up to 128 dimensions, up to 64
// query heads to a KV head and blocks of a power of two tokens. See tile_attention.cu.
#pragma once

#include "backend/cuda/cuda_kernels.h"

namespace bise::cuda {

bool supports_tile_attention(std::int64_t num_heads, const StepView& step, const CacheView& cache);
// A workspace begins with counters, zero at first; a launch leaves them zero.
constexpr std::size_t kAttentionCounterBytes = std::size_t{1} << 18;
std::size_t tile_attention_workspace(const StepView& step, std::int64_t num_heads, const CacheView& cache);
// As attention() in cuda_kernels.h.
void tile_attention(Values qkv, std::int64_t num_heads, const StepView& step, std::int64_t group,
                    std::int64_t sliding_window, const CacheView& cache, Values out, std::int64_t out_stride,
                    void* workspace, cudaStream_t stream);

}  // namespace bise::cuda
