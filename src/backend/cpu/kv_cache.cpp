#include "backend/cpu/kv_cache.h"

#include <cstring>
#include <string>

#include "base/check.h"
#include "base/error.h"

namespace bise {
namespace {

constexpr std::int64_t kDimStep = 16, kMaxHeadDim = 256, kMaxBlockSize = 1024;

std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}

// Throws unless the attention kernels can work with `shape`; returns it.
const KvCacheShape& checked(const KvCacheShape& shape) {
  check(shape.layers >= 0 && shape.num_blocks >= 0 && shape.num_kv_heads > 0, "a cache has a size");
  if (shape.dtype != DType::kBF16 && shape.dtype != DType::kF32 && shape.dtype != DType::kF8E4M3)
    throw Error("the cpu backend has no KV cache of this type")
        .expected("BF16, F32 or F8_E4M3")
        .got(std::string(dtype_name(shape.dtype)));
  if (shape.head_dim < kDimStep || shape.head_dim > kMaxHeadDim || shape.head_dim % kDimStep != 0)
    throw Error("the cpu backend's attention does not know this head_dim")
        .expected("a multiple of 16, at most 256")
        .got(std::to_string(shape.head_dim));
  if (shape.block_size < 1 || shape.block_size > kMaxBlockSize)
    throw Error("the KV cache cannot have this block size")
        .expected("1 to 1024 tokens")
        .got(std::to_string(shape.block_size));
  return shape;
}

}  // namespace

CpuKvCache::CpuKvCache(const KvCacheShape& shape, BlockLayout layout)
    : KvCache(checked(shape)),
      layout_(layout),
      dim_stride_(round_up(shape.head_dim, 32)),
      slot_stride_(round_up(shape.block_size, 16)) {
  const auto element = static_cast<std::int64_t>(dtype_size(shape.dtype));
  const bool tiles = layout == BlockLayout::kTiles;
  check(!tiles || (shape.dtype != DType::kF32 && shape.block_size % 32 == 0),
        "tiles are bf16 or e4m3, 32 keys each");
  // Every matrix starts on a cache line.
  key_bytes_ =
      round_up((tiles ? shape.block_size * dim_stride_ : shape.head_dim * slot_stride_) * element, 64);
  value_bytes_ = round_up(shape.head_dim * shape.block_size * element, 64);
  block_bytes_ = shape.num_kv_heads * (key_bytes_ + value_bytes_);
  memory_ = AlignedBuffer<std::byte>(shape.layers * shape.num_blocks * block_bytes_);
}

void CpuKvCache::copy_block(std::int64_t from, std::int64_t to) {
  check(from >= 0 && from < shape_.num_blocks && to >= 0 && to < shape_.num_blocks,
        "blocks are in the cache");
  for (std::int64_t layer = 0; layer < shape_.layers; ++layer) {
    const std::byte* first = keys(layer, 0);
    std::memcpy(keys(layer, 0) + to * block_bytes_, first + from * block_bytes_,
                static_cast<std::size_t>(block_bytes_));
  }
}

}  // namespace bise
