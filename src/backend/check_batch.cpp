#include "backend/check_batch.h"

#include "base/check.h"

namespace bise {

void check_batch(const Batch& batch, const KvCacheShape& cache) {
  const auto tokens = static_cast<std::size_t>(batch.tokens());
  const auto sequences = static_cast<std::size_t>(batch.sequences());
  check(batch.positions.size() == tokens, "a batch has one position per token");
  check(batch.query_starts.size() == sequences + 1 && batch.query_starts.front() == 0 &&
            batch.query_starts.back() == batch.tokens(),
        "query_starts spans the batch");
  check(
      batch.groups > 0 && batch.block_table.size() ==
                              sequences * static_cast<std::size_t>(batch.groups * batch.blocks_per_sequence),
      "block_table has blocks_per_sequence entries per sequence and group");
  for (std::size_t s = 0; s < sequences; ++s) {
    const std::int64_t first = batch.query_starts[s], last = batch.query_starts[s + 1];
    const std::int64_t context = batch.context_lengths[s];
    check(first <= last && last - first <= context, "a sequence's queries are the end of its context");
    check(context <= batch.blocks_per_sequence * cache.block_size, "the context fits the block table");
    for (std::int64_t t = first; t < last; ++t)
      check(batch.positions[static_cast<std::size_t>(t)] == context - (last - t),
            "positions count up to the end of the context");
    for (std::int64_t group = 0; group < batch.groups; ++group) {
      const auto blocks = batch.blocks(static_cast<std::int64_t>(s), group);
      for (std::int64_t i = 0; i * cache.block_size < context; ++i) {
        const std::int64_t block = blocks[static_cast<std::size_t>(i)];
        check(block >= -1 && block < cache.num_blocks, "a block of the table is in the cache");
        check(block >= 0 || (i + 1) * cache.block_size <= context - (last - first),
              "a position to write has a block");
      }
    }
  }
}

}  // namespace bise
