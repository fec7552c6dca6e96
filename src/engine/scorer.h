// Log-probabilities of given tokens. Belongs to the thread that uses the decoder's backend.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "engine/log_softmax.h"
#include "model/decoder.h"

namespace bise {

struct TokenScores {
  // logprobs[i] scores token i given those before it, in nats; logprobs[0] is NaN.
  std::vector<double> logprobs;
  // top[i]: the most likely tokens for the position after token i, best first; empty when none are asked for.
  std::vector<std::vector<TokenLogprob>> top;
};

// Scores each of `sequences` (not empty, ids inside the vocabulary: checked), several in a step, long ones
// in pieces. A sequence's scores do not depend on the others.
std::vector<TokenScores> score(Decoder& decoder, ThreadPool& pool,
                               std::span<const std::vector<std::int32_t>> sequences, std::int64_t top_k,
                               DType kv_cache_dtype = DType::kBF16);

}  // namespace bise
