// A model behind an OpenAI-compatible server, asked as lm-evaluation-harness's local-completions asks: token
// ids in, log-probabilities of the prompt by `echo` (spec/evaluation.md section 7). One thread uses it; calls
// are in flight at the same time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "eval/language_model.h"
#include "net/http_client.h"
#include "text/tokenizer.h"

namespace bise {

struct ServerModelOptions {
  std::string base_url;                  // "http://host:port/v1/completions", or the server's root or "/v1"
  std::string model;                     // as the server names it; "": the first that it lists
  std::string api_key;                   // or ""
  const Tokenizer* tokenizer = nullptr;  // null: the server's own /tokenize is asked
  std::int64_t max_length = 2048;        // tokens of prompt and answer
  std::int64_t num_concurrent = 8, max_retries = 3;
  double timeout = 300;   // s of one call
  double first_wait = 1;  // s before a call is tried again; doubles up to 10
  std::int64_t seed = 1234;
};

// The parts of a completions answer that are read; `where` names the server. Throw Error where the answer
// lacks them, as of a server that ignores `echo`. Tokens [context, prompt) are scored; the answer has one
// token more than the prompt.
Likelihood completion_scores(const std::string& body, std::size_t context, std::size_t prompt,
                             const std::string& where);
std::string completion_text(const std::string& body, const std::string& where);

class ServerModel : public LanguageModel {
 public:
  // Asks the server for its models. Throws Error when it does not answer.
  explicit ServerModel(ServerModelOptions options);

  const std::string& model() const { return options_.model; }

  void loglikelihood(std::span<const LikelihoodRequest> requests, const OnLikelihood& done) override;
  void generate(std::span<const GenerateRequest> requests, const OnText& done) override;

 private:
  // One POST of `bodies`; answers come in any order.
  using OnBody = std::function<void(std::size_t index, const std::string& body)>;
  void post_all(const std::string& url, const std::vector<std::string>& bodies, const OnBody& on_body);
  std::string fetch(const std::string& method, const std::string& url, const std::string& body);
  std::vector<std::int32_t> encode(std::string_view text, bool special_tokens = true);
  HttpCall call(const std::string& method, const std::string& url, std::string body) const;

  ServerModelOptions options_;
  std::string root_, completions_;
  HttpClient client_;
};

}  // namespace bise
