// A checkpoint on this machine as evaluation sees it. Belongs to the thread that uses the backend.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/continuation_scorer.h"
#include "eval/language_model.h"
#include "text/tokenizer.h"

namespace bise {

struct LocalModelOptions {
  std::int64_t max_length = 2048;  // tokens of context and continuation; longer ones lose their beginning
  std::int64_t max_num_seqs = 16;  // texts generated at the same time
  DType kv_cache_dtype = DType::kBF16;
  std::vector<std::int32_t> eos_token_ids;
};

// Texts to tokens; `special`: with what the tokenizer puts around a text.
using EncodeText = std::function<std::vector<std::int32_t>(std::string_view text, bool special)>;
// The tokenizer's, which puts no BOS before a text that begins with it.
std::vector<std::int32_t> encode_text(const Tokenizer& tokenizer, std::string_view text, bool special = true);

// A context and its continuation in tokens, split as lm-evaluation-harness does (spec/evaluation.md section
// 2.1): blanks at the context's end go over to the continuation; its tokens are those that the joined text
// has beyond the context's own. `prefix_token` stands for an empty context.
std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>> encode_pair(const EncodeText& encode,
                                                                            std::string_view context,
                                                                            std::string_view continuation,
                                                                            std::int32_t prefix_token);
// The windows of a text that is scored as a whole (section 2.2): `window` tokens predicted at most, with as
// much before them as fits; `prefix_token` stands before the first. 1 <= window.
std::vector<ScoredSequence> rolling_windows(const std::vector<std::int32_t>& tokens,
                                            std::int32_t prefix_token, std::int64_t window);
// What is scored for a request, each of at most max_length + 1 tokens: several sequences for a whole text,
// none where there is nothing to score. Longer ones lose their beginning.
std::vector<ScoredSequence> sequences_of(const LikelihoodRequest& request, const EncodeText& encode,
                                         std::int32_t prefix_token, std::int64_t max_length);

class LocalModel : public LanguageModel {
 public:
  // Decoder, pool and tokenizer outlive the model.
  LocalModel(Decoder& decoder, ThreadPool& pool, const Tokenizer& tokenizer, LocalModelOptions options);

  void loglikelihood(std::span<const LikelihoodRequest> requests, const OnLikelihood& done) override;
  void generate(std::span<const GenerateRequest> requests, const OnText& done) override;

  const ContinuationScorer& scorer() const { return scorer_; }

 private:
  Decoder& decoder_;
  ThreadPool& pool_;
  const Tokenizer& tokenizer_;
  LocalModelOptions options_;
  ContinuationScorer scorer_;
};

}  // namespace bise
