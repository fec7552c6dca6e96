// Attention over the paged cache, the part that is the same for every instruction set: how the work is cut
// into items for the threads.
//
// The query heads that share a kv head are columns of one problem: column c of a sequence is its query token
// c / group, head c % group. A tile is a run of such columns. Its keys are taken in chunks of kChunkKeys
// absolute positions; each chunk starts from an empty state, and the states are merged in ascending order.
// So the result of a column depends neither on the tile that it falls into, nor on the cut of the prompt, nor
// on which thread computes which chunk.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/aligned_buffer.h"
#include "backend/cpu/kv_cache.h"
#include "base/thread_pool.h"
#include "tensor/float_types.h"

namespace bise {

constexpr std::int64_t kChunkKeys = 256;

// Columns [first_column, first_column + columns) of one sequence and kv head.
struct QueryTile {
  const float* queries;     // of the sequence's first token, the kv head's first query head, rotated
  std::int64_t row_stride;  // floats from one token to the next
  float* out;               // where that head's result goes
  bf16* rounded_out;        // or, where not null, its bfloat16 values
  std::int64_t out_stride;  // elements from one token to the next
  std::int64_t group;       // query heads of the kv head
  std::int64_t head_dim;
  std::int64_t first_column, columns;
  std::int64_t first_position;  // of the sequence's first token of this step
  std::int64_t window;          // positions (p - window, p] are visible at p; the largest int64 for all
  float value_scale;            // of the cached values

  const float* query(std::int64_t column) const {
    const std::int64_t c = first_column + column;
    return queries + c / group * row_stride + c % group * head_dim;
  }
  // Of the column's first element in `out` or `rounded_out`.
  std::int64_t result(std::int64_t column) const {
    const std::int64_t c = first_column + column;
    return c / group * out_stride + c % group * head_dim;
  }
  std::int64_t position(std::int64_t column) const {
    return first_position + (first_column + column) / group;
  }
  // The keys that at least one column sees: [first_key, end_key).
  std::int64_t first_key() const { return position(0) < window ? 0 : position(0) - window + 1; }
  std::int64_t end_key() const { return position(columns - 1) + 1; }
};

// The cached keys and values of one sequence, layer and kv head.
struct CachedKeys {
  const std::byte* keys;  // block 0's matrix
  const std::byte* values;
  std::int64_t block_bytes;
  const std::int32_t* blocks;  // [blocks of the sequence]
  std::int64_t block_size, dim_stride, slot_stride;

  const std::byte* block_keys(std::int64_t block) const { return keys + blocks[block] * block_bytes; }
  const std::byte* block_values(std::int64_t block) const { return values + blocks[block] * block_bytes; }
};

// One instruction set's arithmetic. A state holds for every column of a tile the softmax's reference
// maximum, its sum and the weighted sum of values; its layout is the kernel's. Thread-safe.
class AttentionKernel {
 public:
  virtual ~AttentionKernel() = default;
  virtual std::int64_t max_columns() const = 0;
  virtual std::int64_t scratch_floats(const KvCacheShape& cache) const = 0;  // multiple of 16
  virtual std::int64_t state_floats(const KvCacheShape& cache) const = 0;    // multiple of 16

  // Brings the tile's queries, times `scale`, into `scratch` for the attend() calls that follow.
  virtual void pack(const QueryTile& tile, float scale, const CachedKeys& keys, float* scratch) const = 0;
  virtual void reset(const QueryTile& tile, float* state) const = 0;
  // Adds keys [begin, end), all of one chunk, to `state`. Scores are taken as powers of 2.
  virtual void attend(const QueryTile& tile, const CachedKeys& keys, std::int64_t begin, std::int64_t end,
                      float* scratch, float* state) const = 0;
  virtual void merge(const QueryTile& tile, const float* chunk, float* total) const = 0;
  // Writes the normalized rows to tile.out, or to tile.rounded_out if the kernel rounds().
  virtual void finish(const QueryTile& tile, const float* total) const = 0;
  virtual bool rounds() const { return false; }
};

// Whether caches of this shape shall be in tiles; other shapes are in vectors.
bool has_tile_attention(Isa isa, const KvCacheShape& cache);
// The kernels for a cache of `layout` and `dtype`.
std::unique_ptr<AttentionKernel> make_attention_kernel(Isa isa, BlockLayout layout, DType dtype);

// Rows of the attention's result, `stride` elements apart. One of the two is given.
struct AttentionRows {
  float* floats;
  bf16* rounded;  // only if the attention rounds()
  std::int64_t stride;
};

// Runs a kernel over a batch. Scratch grows in begin_step, the lists of tiles in the first layer of a step
// larger than any before.
class Attention {
 public:
  Attention(ThreadPool& pool, Isa isa) : pool_(pool), isa_(isa) {}

  void begin_step(const Batch& batch, CpuKvCache& cache);
  bool rounds() const { return kernel_->rounds(); }
  // qkv: the rows of the batch; out [tokens, num_heads * head_dim].
  void run(const AttentionShape& shape, CacheLayer layer, std::int64_t sliding_window, const float* qkv,
           const AttentionRows& out);

 private:
  struct Item {
    QueryTile tile;
    CachedKeys keys;
    std::int64_t first_chunk, end_chunk;
    std::int64_t first_state;  // in states_, of the first chunk

    std::int64_t first_key(std::int64_t chunk) const {
      return std::max(tile.first_key(), chunk * kChunkKeys);
    }
    std::int64_t end_key(std::int64_t chunk) const {
      return std::min(tile.end_key(), (chunk + 1) * kChunkKeys);
    }
    std::int64_t keys_of_chunk(std::int64_t chunk) const { return end_key(chunk) - first_key(chunk); }
  };
  void run_item(const Item& item, float scale, int thread);
  void run_split(float scale);
  void attend_chunk(const Item& item, std::int64_t chunk, float* scratch, float* state) const;
  void list_tiles(const AttentionShape& shape, CacheLayer layer, std::int64_t sliding_window,
                  const float* qkv, const AttentionRows& out);

  ThreadPool& pool_;
  Isa isa_;
  std::unique_ptr<AttentionKernel> kernel_;
  BlockLayout kernel_layout_ = BlockLayout::kVectors;
  DType kernel_dtype_ = DType::kBF16;
  Batch batch_;
  CpuKvCache* cache_ = nullptr;
  std::vector<Item> tiles_, parts_;
  AlignedBuffer<float> scratch_;  // per thread: kernel scratch, chunk state, total state
  AlignedBuffer<float> states_;   // of parts_
  std::int64_t scratch_floats_ = 0, state_floats_ = 0;
};

}  // namespace bise
