// The CPU backend's paged KV cache. One layer of one block holds, for every kv head, a matrix of keys and a
// matrix of values in one of two layouts, as the attention kernel reads them:
//
//   kTiles     keys [block_size][dim_stride], values [head_dim][block_size]: rows of AMX's A tiles. bf16 or
//   e4m3. kVectors   keys [head_dim][slot_stride], values [block_size][head_dim]: rows of vectors over keys
//   and
//              over dimensions. bf16, f32 or e4m3.
//
// dim_stride is head_dim rounded up to 32 and slot_stride block_size rounded up to 16; the filling is zero.
// Threads: different (block, head) pairs may be written by different threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "backend/backend.h"
#include "backend/cpu/aligned_buffer.h"

namespace bise {

enum class BlockLayout { kTiles, kVectors };

class CpuKvCache final : public KvCache {
 public:
  CpuKvCache(const KvCacheShape& shape, BlockLayout layout);

  std::int64_t bytes() const override { return memory_.size(); }
  BlockLayout layout() const { return layout_; }
  std::int64_t dim_stride() const { return dim_stride_; }
  std::int64_t slot_stride() const { return slot_stride_; }

  // The matrices of block 0; those of block b stand b * block_bytes() further.
  std::byte* keys(std::int64_t layer, std::int64_t head) {
    return memory_.data() + layer * shape_.num_blocks * block_bytes_ + head * (key_bytes_ + value_bytes_);
  }
  std::byte* values(std::int64_t layer, std::int64_t head) { return keys(layer, head) + key_bytes_; }
  std::int64_t block_bytes() const { return block_bytes_; }
  // Both are blocks of the cache (checked).
  void copy_block(std::int64_t from, std::int64_t to);

 private:
  BlockLayout layout_;
  std::int64_t dim_stride_, slot_stride_;
  std::int64_t key_bytes_, value_bytes_;  // of one (block, head)
  std::int64_t block_bytes_;              // of one layer of one block
  AlignedBuffer<std::byte> memory_;
};

}  // namespace bise
