// Log-likelihoods of the ends of token sequences that often begin alike (the choices of a question, questions
// behind the same examples): what two sequences share is computed once, block by block of the cache. Belongs
// to the thread that uses the decoder's backend.
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

// Tokens [first, end) are scored, each given all before it. 1 <= first < token_ids.size() (checked), ids
// inside the vocabulary (checked).
struct ScoredSequence {
  std::vector<std::int32_t> token_ids;
  std::int64_t first = 1;
};

struct ContinuationScore {
  double logprob = 0;   // sum of the scored tokens' natural log-probabilities
  bool greedy = false;  // every scored token is a most likely one
};

class ContinuationScorer {
 public:
  // Decoder and pool outlive the scorer.
  ContinuationScorer(Decoder& decoder, ThreadPool& pool, DType kv_cache_dtype = DType::kBF16);

  // In the order given; the sequences run in the order of their tokens, and a sequence's score depends on the
  // others only by rounding. `on_scored` (may be empty) hears of each sequence by index, when it is done.
  using OnScored = std::function<void(std::size_t index, const ContinuationScore& score)>;
  std::vector<ContinuationScore> score(std::span<const ScoredSequence> sequences,
                                       const OnScored& on_scored = {});

  // Since the construction: tokens in the sequences' inputs, and those that ran through the model.
  std::int64_t given_tokens() const { return given_tokens_; }
  std::int64_t computed_tokens() const { return computed_tokens_; }

 private:
  // A sequence of the step. Its last token is never fed: nothing after it is scored.
  struct Active {
    const ScoredSequence* sequence = nullptr;
    std::size_t index = 0;
    std::int64_t computed = 0;
    bool reported = false;
    std::vector<std::int32_t> columns;  // the cache's columns that hold its blocks, in order
    std::int64_t fed_length() const { return static_cast<std::int64_t>(sequence->token_ids.size()) - 1; }
    bool fed() const { return computed == fed_length(); }
  };
  struct Row {
    std::int32_t row, token;
    std::size_t index;
    double logprob;
    bool greedy;
  };

  void prepare(std::span<const ScoredSequence> sequences);
  void start(const ScoredSequence& sequence, std::size_t index);
  void feed(Active& active);
  void read_rows();
  void release(const Active& active);

  Decoder& decoder_;
  ThreadPool& pool_;
  DType kv_cache_dtype_;
  std::int64_t block_size_, given_tokens_ = 0, computed_tokens_ = 0;

  // Of the score() that runs. Column c stands for block c * groups + g of each KV group g.
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<StepBatch> batch_;
  std::vector<std::int32_t> free_columns_, holders_;
  std::vector<Active> step_;
  std::vector<Row> rows_;
};

}  // namespace bise
