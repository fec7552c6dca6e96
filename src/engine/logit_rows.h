// Runs token sequences from empty caches through one or several decoders and hands out the logits row by
// row, a few rows at a time, so that tokens x vocabulary never stands in memory whole. Belongs to the thread
// that uses the decoders' backends.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "model/decoder.h"
#include "model/step_batch.h"

namespace bise {

// Where a row of logits stands: they predict token position + 1 of sequence `sequence`.
struct RowPlace {
  std::size_t sequence = 0;
  std::int64_t position = 0;
};

// logits[d] holds the [vocab_size] logits of decoder d. Called from the threads of the pool, once for each
// place, in no fixed order.
using VisitRow = std::function<void(RowPlace place, std::span<const std::span<const float>> logits)>;

class LogitRows {
 public:
  // `decoders` have the same vocabulary; caches for `sequences` sequences of `max_length` tokens are made
  // for each, of its type. Decoders and pool outlive this object.
  LogitRows(std::vector<Decoder*> decoders, ThreadPool& pool, std::int64_t sequences, std::int64_t max_length,
            const std::vector<DType>& kv_cache_dtypes);

  // Sequences of `length` tokens that run together within the decoders' step size; at least 1.
  static std::int64_t sequences_at_once(const Decoder& decoder, std::int64_t length);

  // Computes all `sequences` (no more and no longer than stated above) and visits the rows at positions
  // [first, length of the sequence - skip_last).
  void run(std::span<const std::span<const std::int32_t>> sequences, std::int64_t first,
           std::int64_t skip_last, const VisitRow& visit);

 private:
  void visit_step(const VisitRow& visit);

  std::vector<Decoder*> decoders_;
  ThreadPool& pool_;
  std::int64_t max_tokens_, max_logit_rows_, max_length_, blocks_per_sequence_;
  std::vector<std::unique_ptr<KvCache>> caches_;
  std::vector<StepBatch> batches_;  // the same tokens, each decoder's own block tables
  // Of the step that runs: rows whose logits are wanted, and their places.
  std::vector<std::int32_t> rows_;
  std::vector<RowPlace> places_;
};

}  // namespace bise
