// Draws the next token of one request from its logits, in vLLM's order (spec/serving.md section 3.5):
// penalties, temperature, min_p, top_k, top_p, Gumbel-max. The draw depends on the logits, the request's
// seed and the position only, never on the batch. Owned by its sequence; different samplers may draw on
// different threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"

namespace bise {

// Whether every parameter is in its range.
bool valid(const SamplingParams& params);

class Sampler {
 public:
  // Memory that one draw needs; one per thread, reused.
  class Scratch {
   public:
    explicit Scratch(std::int64_t vocab_size);

   private:
    friend class Sampler;
    struct Candidate {
      float logit;
      std::int32_t token;
    };
    std::vector<float> logits, largest;
    std::vector<Candidate> candidates;
  };

  // `seed` is used where the request has none.
  Sampler(const SamplingParams& params, std::uint64_t seed, std::span<const std::int32_t> prompt,
          std::int64_t vocab_size);

  // The token at `position` of the sequence, which so far has `generated` tokens after its prompt.
  std::int32_t sample(std::span<const float> logits, std::int64_t position, std::int64_t generated,
                      Scratch& scratch) const;
  // Tells that `token` now stands in the output.
  void accept(std::int32_t token);

 private:
  bool has_penalties() const;
  void see(std::int32_t token);
  void apply_penalties(std::span<float> logits) const;
  void filter(std::span<const float> logits, Scratch& scratch) const;

  SamplingParams params_;
  std::uint64_t seed_;
  // Kept only with penalties: how often each token is in the output, and which occur in prompt or output.
  std::vector<std::int32_t> output_counts_;  // [vocabulary]
  std::vector<std::uint8_t> seen_;           // [vocabulary]
  std::vector<std::int32_t> seen_tokens_;
};

// Index of the largest value, the first of equals. Throws InternalError when there is a NaN.
std::int32_t argmax(std::span<const float> values);

}  // namespace bise
