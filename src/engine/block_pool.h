// Which blocks of a KV cache are in use, and by how many. Belongs to the engine's thread.
#pragma once

#include <cstdint>
#include <vector>

namespace bise {

class BlockPool {
 public:
  BlockPool(std::int64_t num_blocks, std::int64_t block_size);

  std::int64_t num_blocks() const { return static_cast<std::int64_t>(references_.size()); }
  std::int64_t block_size() const { return block_size_; }
  std::int64_t free_blocks() const { return static_cast<std::int64_t>(free_.size()); }
  // Blocks that `tokens` tokens fill.
  std::int64_t blocks_for(std::int64_t tokens) const { return (tokens + block_size_ - 1) / block_size_; }

  // Appends `count` blocks with one reference each to `blocks`; false, and nothing, when so many are not
  // free.
  bool allocate(std::int64_t count, std::vector<std::int32_t>& blocks);
  // One more holder of a block in use.
  void share(std::int32_t block);
  // Drops one reference of each, the last block first, and empties the list: so that a sequence's first
  // blocks, which others may want again, are reused last.
  void release(std::vector<std::int32_t>& blocks);

 private:
  std::int64_t block_size_;
  std::vector<std::int32_t> references_;  // [num_blocks]
  std::vector<std::int32_t> free_;        // taken from the back
};

}  // namespace bise
