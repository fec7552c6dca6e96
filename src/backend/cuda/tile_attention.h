// Causal attention over the paged cache on the tensor cores, for heads of 64 or 128 dimensions, up to 64
// query heads to a KV head and blocks of 8, 16, 32... tokens. See tile_attention.cu.
#pragma once

#include <cuda.h>

#include "backend/cuda/cuda_kernels.h"

namespace bise::cuda {

bool supports_tile_attention(std::int64_t num_heads, const StepView& step, const CacheView& cache);
// A workspace begins with counters, zero at first; a launch leaves them zero.
constexpr std::size_t kAttentionCounterBytes = std::size_t{1} << 18;
std::size_t tile_attention_workspace(const StepView& step, std::int64_t num_heads, const CacheView& cache);
// As attention() in cuda_kernels.h. With `angles` (rope_angles) where turns_in_attention(), queries of qkv,
// which is bf16, turn on the way. Where all sequences have one query, keys do so too, and are stored in the
// cache with their values; else turn_and_store() came before. The bits are those that rope_and_store() gives.
bool turns_in_attention(std::int64_t num_heads, const StepView& step, const CacheView& cache);
void tile_attention(Values qkv, const float* angles, std::int64_t num_heads, const StepView& step,
                    std::int64_t group, std::int64_t sliding_window, const CacheView& cache, Values out,
                    std::int64_t out_stride, void* workspace, cudaStream_t stream);

// How the copy engine finds `tile_heads` heads of `tile_rows` rows in bf16 rows [count, columns], 64 columns
// of a head at a time: a tile's rows are the heads of the first row, then those of the second... Throws Error
// when the driver refuses.
CUtensorMap head_tile_map(const void* rows, std::int64_t count, std::int64_t columns, std::int64_t head_dim,
                          int tile_heads, int tile_rows);

// Tiles of `tile_rows` rows and `tile_columns` of bytes [rows, stride], row after row.
CUtensorMap code_tile_map(const void* codes, std::int64_t rows, std::int64_t stride, int tile_columns,
                          int tile_rows);

}  // namespace bise::cuda
