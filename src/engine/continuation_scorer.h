// Log-likelihoods of the ends of token sequences that often begin alike (the choices of a question, questions
// behind the same examples): the sequences are a tree, each of whose tokens is computed once. Belongs to the
// thread that uses the decoder's backend.
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

  // In the order given; a sequence's score depends on the others only by rounding. `on_scored` (may be empty)
  // hears of each sequence by index, when it is done.
  using OnScored = std::function<void(std::size_t index, const ContinuationScore& score)>;
  std::vector<ContinuationScore> score(std::span<const ScoredSequence> sequences,
                                       const OnScored& on_scored = {});

  // Since the construction: tokens in the sequences' inputs, and those that ran through the model.
  std::int64_t given_tokens() const { return given_tokens_; }
  std::int64_t computed_tokens() const { return computed_tokens_; }

 private:
  // The log-probability of `token` behind the token at `position` is part of a sequence's score.
  struct Wanted {
    std::int64_t position;
    std::int32_t token;
    std::size_t sequence;
  };
  // Tokens [begin, end) that all sequences below this node have, behind its parent's. They wait in the cache
  // until the last child has begun.
  struct Node {
    const ScoredSequence* sequence = nullptr;  // one of those below
    std::int64_t begin = 0, end = 0, computed = 0;
    std::int32_t parent = 0;
    std::vector<std::int32_t> children;
    std::size_t waiting_children = 0;
    std::vector<Wanted> wanted;
    std::vector<std::int32_t> columns;  // the cache's columns with the tokens [0, end), in order
  };
  struct Row {
    std::int32_t row;
    const Wanted* wanted;
    double logprob;
    bool greedy;
  };

  void check_sequences(std::span<const ScoredSequence> sequences) const;
  std::vector<std::int32_t> make_tree(std::span<const ScoredSequence> sequences);
  std::int32_t add_leaf(std::vector<std::int32_t>& path, const ScoredSequence& sequence, std::int64_t shared);
  void want(std::span<const ScoredSequence> sequences, std::span<const std::int32_t> leaves);
  void make_cache();
  bool has_room(const Node& node) const;
  void start(Node& node);
  void feed(Node& node);
  void read_rows();
  void finish(std::int32_t index);
  void release(Node& node);
  std::int64_t blocks_of(std::int64_t tokens) const { return (tokens + block_size_ - 1) / block_size_; }
  Node& node(std::int32_t index) { return nodes_[static_cast<std::size_t>(index)]; }

  Decoder& decoder_;
  ThreadPool& pool_;
  DType kv_cache_dtype_;
  std::int64_t block_size_, given_tokens_ = 0, computed_tokens_ = 0;

  // Of the score() that runs. Column c stands for block c * groups + g of each KV group g.
  std::vector<Node> nodes_;          // 0 is the empty root
  std::vector<std::int32_t> ready_;  // nodes whose parent is computed; the last goes first
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<StepBatch> batch_;
  std::vector<std::int32_t> free_columns_, holders_;
  std::int64_t reserved_columns_ = 0;  // enough for the deepest path alone
  std::vector<Row> rows_;
};

}  // namespace bise
