// What evaluation asks of a model: log-likelihoods of continuations and of whole texts, and generated text.
// Two kinds: a local checkpoint (local_model.h) and a server (server_model.h). One thread.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

// Views into texts that outlive the call.
struct LikelihoodRequest {
  std::string_view context, continuation;
  bool rolling = false;  // the continuation is a whole text of any length, scored window by window
};
struct Likelihood {
  double logprob = 0;   // natural, summed over the continuation's tokens
  bool greedy = false;  // each of them was the most likely one
};

struct GenerateRequest {
  std::string_view context;
  std::vector<std::string> until;  // the text ends before the first of these
  std::int64_t max_gen_toks = 256;
  double temperature = 0, top_p = 1;
};

class LanguageModel {
 public:
  // Hears of each answered request, by its index, in any order.
  using OnLikelihood = std::function<void(std::size_t index, const Likelihood& answer)>;
  using OnText = std::function<void(std::size_t index, const std::string& text)>;

  virtual ~LanguageModel() = default;

  virtual void loglikelihood(std::span<const LikelihoodRequest> requests, const OnLikelihood& done) = 0;
  virtual void generate(std::span<const GenerateRequest> requests, const OnText& done) = 0;
};

}  // namespace bise
