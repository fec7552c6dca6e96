// Computes the engine's steps with a decoder: forward, logits for the rows that need them, draws and
// log-probabilities. Where the device draws tokens (Decoder::draws_tokens), logits come to the host only for
// sequences whose sampling it cannot do, which depends on the request alone, and for rows without a token to
// draw. What edits logits (penalties, biases, masks) is gathered while the device computes. Owns the KV cache
// and the step's arrays; nothing is allocated in a step without log-probabilities. Belongs to the engine
// thread; decoder and pool outlive it.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "engine/logprobs.h"
#include "engine/model_runner.h"
#include "model/decoder.h"
#include "model/step_batch.h"

namespace bise {

struct DecoderRunnerOptions {
  std::int64_t num_blocks = 0;  // of the KV cache
  DType kv_cache_dtype = DType::kBF16;
  std::int64_t max_num_seqs = 256;          // sequences in one step
  std::int64_t max_sequence_tokens = 2048;  // of one sequence, drafts included
  std::int64_t num_speculative_tokens = 0;  // most drafts of a sequence
  LogprobsMode logprobs_mode = LogprobsMode::kRawLogprobs;
};

class DecoderRunner final : public ModelRunner {
 public:
  DecoderRunner(Decoder& decoder, ThreadPool& pool, const DecoderRunnerOptions& options);

  std::int64_t vocab_size() const override { return decoder_.config().vocab_size; }
  std::int64_t num_blocks() const override { return cache_->shape().num_blocks; }
  std::int64_t block_size() const override { return cache_->shape().block_size; }
  const KvLayout& kv_layout() const override { return decoder_.kv_layout(); }
  const KvCache& cache() const { return *cache_; }

  void launch(std::span<const StepSequence> sequences) override;
  std::span<const StepResult> results() override;

 private:
  // Rows [first_row, end_row) of rows_ with one job: a prompt token to score, or a token to draw and, when
  // it is what the draft guessed, the next ones. Drawing stays in order: one thread does it.
  struct Work {
    std::size_t sequence, first_row, end_row;
    bool draws;
    std::int64_t first_token;  // of the sequence's token_ids, the one of first_row
    // The device draws; of logits that it edits before.
    bool on_device = false, edited = false;
    std::size_t logits_row = 0;  // of first_row in the logits on the host
  };
  // A thread's memory.
  struct Scratch {
    explicit Scratch(std::int64_t vocab_size) : sampler(vocab_size), logprobs(vocab_size) {}
    Sampler::Scratch sampler;
    LogprobsScratch logprobs;
  };

  void add_rows(std::size_t index, std::int64_t first_token, std::int64_t count, std::int32_t row,
                bool draws);
  void let_device_draw(const StepSequence& sequence);
  void prepare_masks();
  void draw_edited(std::size_t first, std::size_t count, std::span<const Work> work);
  std::span<const float> piece_logits(std::size_t first, std::size_t count, std::span<Work> work);
  bool accept_drawn(const Work& work, std::int32_t token);
  void do_work(const Work& work, std::span<const float> logits, Scratch& scratch);
  void draw(const Work& work, std::span<const float> logits, Scratch& scratch);
  void score(const Work& work, std::span<const float> logits, Scratch& scratch);

  Decoder& decoder_;
  ThreadPool& pool_;
  LogprobsMode logprobs_mode_;
  std::size_t vocabulary_, rows_at_once_;
  std::unique_ptr<KvCache> cache_;
  StepBatch batch_;
  std::vector<Scratch> scratch_;  // one per thread

  // Of the step that runs.
  std::span<const StepSequence> sequences_;
  std::vector<StepResult> results_;
  std::vector<std::int32_t> rows_;        // whose logits are wanted
  std::vector<Work> work_;                // in the order of their rows
  std::vector<TokenDraw> draws_;          // [rows_], where the device draws
  std::vector<std::int32_t> drawn_;       // [rows at once] tokens
  std::vector<std::int32_t> read_rows_;   // of a piece, those whose logits the host needs
  bool device_draws_ = false;             // in this step
  std::vector<EditedDraw> edited_;        // of a piece
  std::vector<std::uint8_t> missed_;      // [sequences] whether a draft was not what was drawn
  std::vector<std::size_t> constrained_;  // sequences whose constraint has a mask to make
  bool pending_ = false;                  // results_ are not made yet
};

}  // namespace bise
