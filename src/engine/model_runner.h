// Computes a step: the engine's view of a model on a device. The decoder runner (engine/decoder_runner.h)
// is the real one; the mock (engine/mock_runner.h) takes a fixed time and needs no model. Belongs to the
// engine thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/sampler.h"
#include "model/kv_layout.h"

namespace bise {

// One sequence's part of a step. Spans stay valid until the step's results have been read.
struct StepSequence {
  // Tokens to compute; they stand at positions [computed, computed + token_ids.size()). The last `drafts` of
  // them are guesses.
  std::span<const std::int32_t> token_ids;
  std::int64_t computed = 0, drafts = 0;
  // One block table for each KV group (KvLayout), with -1 for blocks freed behind a sliding window.
  std::span<const std::span<const std::int32_t>> block_tables;
  // Whether a token is to be drawn after the last non-draft token (and after accepted drafts).
  bool sample = false;
  std::span<const std::int32_t> history;  // prompt and output so far, without the drafts
  std::int64_t prompt_tokens = 0;
  Sampler* sampler = nullptr;  // advanced by the draws; null when nothing is to be sampled or scored
  // Rows whose next prompt token is to be scored: token_ids[i] predicts history[computed + i + 1]. Empty
  // unless prompt_logprobs was asked for.
  std::int64_t score_rows = 0;
};

// Results of the sequence with the same index.
struct StepResult {
  std::vector<std::int32_t> token_ids;  // drawn: 1 + accepted drafts, none without `sample`
  std::vector<PositionLogprobs> logprobs;
  std::vector<PositionLogprobs> prompt_logprobs;
  bool failed = false;  // its logits are no numbers: nothing else counts, and the request ends with kError
};

class ModelRunner {
 public:
  virtual ~ModelRunner() = default;

  virtual std::int64_t vocab_size() const = 0;
  virtual std::int64_t num_blocks() const = 0;
  virtual std::int64_t block_size() const = 0;
  virtual const KvLayout& kv_layout() const = 0;

  // Starts computing; returns at once where the device works by itself.
  virtual void launch(std::span<const StepSequence> sequences) = 0;
  // Waits for the step launched last. Valid until the next launch(). Vectors are reused.
  virtual std::span<const StepResult> results() = 0;
};

}  // namespace bise
