// Which blocks of a KV cache are in use, by how many sequences, and in which order free ones are taken: the
// one that became free first goes first. Block 0, the null block, is never given out: padding may point at
// it. Belongs to the engine's thread; never allocates after its construction.
#pragma once

#include <cstdint>
#include <vector>

namespace bise {

class BlockPool {
 public:
  // All blocks but the null block are free, in ascending order.
  explicit BlockPool(std::int64_t num_blocks);

  static constexpr std::int32_t kNullBlock = 0;

  std::int64_t num_blocks() const { return static_cast<std::int64_t>(blocks_.size()) - 1; }  // null included
  std::int64_t free_blocks() const { return free_; }
  std::int64_t used_blocks() const { return num_blocks() - 1 - free_; }
  std::int32_t references(std::int32_t block) const { return at(block).references; }

  // The first free block, with one reference. There must be one.
  std::int32_t take();
  // One more holder. A free block (which a prefix cache still knows) becomes used.
  void share(std::int32_t block);
  // One holder less. A block without holders becomes the last free one when its contents are worth keeping,
  // the first otherwise.
  void release(std::int32_t block, bool keep);

 private:
  struct Block {
    std::int32_t references = 0;
    std::int32_t previous = 0, next = 0;  // in the free list; of the list's end: the sentinel
  };
  const Block& at(std::int32_t block) const { return blocks_.at(static_cast<std::size_t>(block)); }
  Block& at(std::int32_t block) { return blocks_.at(static_cast<std::size_t>(block)); }
  std::int32_t sentinel() const { return static_cast<std::int32_t>(blocks_.size()) - 1; }
  void link(std::int32_t block, std::int32_t before);
  void unlink(std::int32_t block);

  std::vector<Block> blocks_;  // the last one is the free list's sentinel: its next is the first free block
  std::int64_t free_ = 0;
};

}  // namespace bise
