// The rotary embedding and the way of keys and values into the cache.
//
// Threads: called from the backend's one thread. The work is cut into runs of tokens of one sequence within
// kRunPositions aligned positions; such a run alone writes its slots of the cache.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/aligned_buffer.h"
#include "backend/cpu/kernels.h"
#include "backend/cpu/kv_cache.h"
#include "base/thread_pool.h"

namespace bise {

class Rope {
 public:
  Rope(ThreadPool& pool, Isa isa) : pool_(pool), kernels_(row_kernels(isa)) {}

  // Lists the runs and grows the known tables to the batch's positions.
  void begin_step(const Batch& batch, CpuKvCache& cache);
  // qkv: the rows of the batch. The first use of a table computes it.
  void run(const AttentionShape& shape, const RopeTable& rope, CacheLayer layer, float* qkv);

 private:
  static constexpr std::int64_t kRunPositions = 32;

  // cosine and sine [positions][half], times attention_factor.
  struct Table {
    RopeTable rope;
    std::int64_t positions = 0;
    AlignedBuffer<float> cosine, sine;
  };
  struct Run {
    std::int64_t sequence, first_token, tokens;
  };
  static void grow(Table& table, std::int64_t positions);
  const Table& find(const RopeTable& rope);
  void rotate(const AttentionShape& shape, const Table& table, const Run& run, float* qkv) const;
  void store(const AttentionShape& shape, CacheLayer layer, const Run& run, const float* qkv) const;

  ThreadPool& pool_;
  const RowKernels& kernels_;
  Batch batch_;
  CpuKvCache* cache_ = nullptr;
  std::int64_t positions_ = 0;  // one more than the batch's largest
  std::vector<Run> runs_;
  std::vector<std::unique_ptr<Table>> tables_;
};

}  // namespace bise
