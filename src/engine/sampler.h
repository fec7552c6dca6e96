// Draws the tokens of one sequence from its logits, in the order of spec/serving.md section 3.5: bias,
// allowed ids, min_tokens; penalties; bad words; the constraint's mask; greedy; temperature; min_p; top_k;
// top_p; Gumbel-max. A draw depends on the logits, the seed, the position and the tokens before it only:
// never on the batch, on speculation or on the processor. Owned by its sequence, through preemptions too;
// different samplers may be used on different threads.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backend/backend.h"
#include "engine/largest_logits.h"
#include "engine/request.h"
#include "engine/token_counts.h"

namespace bise {

// Whether every parameter is in its range, and every token id in the vocabulary.
bool valid(const SamplingParams& params, std::int64_t vocab_size = std::numeric_limits<std::int32_t>::max());

class Sampler {
 public:
  // Memory that one draw needs; one per thread, reused.
  class Scratch {
   public:
    explicit Scratch(std::int64_t vocab_size);

   private:
    friend class Sampler;
    float smallest_allowed(const TokenDraw& rule) const;
    void select_candidates(std::span<const float> row, const TokenDraw& rule);
    double weigh(std::size_t first, std::size_t count, float factor);
    void keep_nucleus(double target, float factor);

    std::vector<float> logits, kept, weights;
    LargestLogits largest;
    std::vector<RankedLogit> candidates;
  };

  // `seed` is used where the request has none.
  Sampler(const SamplingParams& params, std::uint64_t seed, std::span<const std::int32_t> prompt,
          std::int64_t vocab_size);

  const SamplingParams& params() const { return params_; }
  // Tokens after the prompt.
  std::int64_t generated() const { return generated_; }

  bool constrained() const { return constraint_ != nullptr; }
  // Lets the constraint, when there is one, say what may come next, ahead of sample(): that takes long and
  // needs no logits.
  void prepare();
  // The next token of the sequence. When everything is masked, it is drawn from what the constraint alone
  // leaves, or the allowed ids alone. Throws NanLogit when a logit is no number.
  std::int32_t sample(std::span<const float> logits, Scratch& scratch);
  // How a device can draw the next token by itself, from the logits as they are or, where edits_logits(),
  // after device_edits(). Null where it cannot, which the request alone decides. A device says -1 where
  // sample() has more to do.
  std::optional<TokenDraw> device_draw() const;
  bool edits_logits() const;
  // Valid until accept().
  LogitEdits device_edits();
  // The logits that sample() draws from, in `scratch`: divided by the temperature, removed tokens at
  // -infinity; of a greedy request, those before the temperature.
  std::span<const float> processed_logits(std::span<const float> logits, Scratch& scratch);
  // Tells that `token` is the sequence's next.
  void accept(std::int32_t token);

 private:
  bool penalized() const;
  bool editable_on_device() const;
  template <class Visit>
  void for_each_removed(Visit visit) const;
  std::span<const float> adjust(std::span<const float> logits, Scratch& scratch);
  std::span<const float> scan(std::span<const float> logits, Scratch& scratch);
  void apply_allowed(Scratch& scratch) const;
  void apply_penalties(std::span<float> logits) const;
  TokenDraw rule() const;

  SamplingParams params_;
  std::uint64_t seed_;
  std::int64_t prompt_tokens_, generated_ = 0;
  TokenCounts counts_;                // kept with penalties only
  std::vector<std::int32_t> output_;  // its last tokens, as many as bad words look at
  std::size_t longest_bad_word_ = 0;
  std::unique_ptr<TokenConstraint> constraint_;
  // [ceil(vocabulary / 32)] of the constraint, or of the allowed ids where there is none.
  std::vector<std::uint32_t> mask_;
  bool mask_ready_ = false;
  bool device_edits_ = true;           // can be made
  std::vector<std::int32_t> removed_;  // of device_edits()
};

// Index of the largest value, the first of equals. Throws NanLogit when there is a NaN.
std::int32_t argmax(std::span<const float> values);

}  // namespace bise
