#include "eval/local_model.h"

#include <algorithm>

#include "base/error.h"
#include "engine/generator.h"
#include "text/detokenizer.h"
#include "text/stop_strings.h"
#include "text/unicode.h"

namespace bise {
namespace {

// Bytes of the blanks at the end.
std::size_t trailing_blanks(std::string_view text) {
  std::string_view rest = text;
  while (!rest.empty() && is_white_space(last_character(rest)))
    rest.remove_suffix(last_character_length(rest));
  return text.size() - rest.size();
}

// One generated text as its tokens come.
struct Answer {
  Answer(const Tokenizer& tokenizer, std::vector<std::string> until)
      : detokenizer(tokenizer), stop(std::move(until)) {}

  StreamDetokenizer detokenizer;
  StopStrings stop;
  std::string text;
};

GenerationRequest generation_request(const GenerateRequest& request, std::vector<std::int32_t> prompt,
                                     const LocalModelOptions& options) {
  const std::int64_t room = options.max_length - request.max_gen_toks;
  if (room < 1)
    throw Error("max_gen_toks leaves no room for a prompt")
        .expected("less than " + std::to_string(options.max_length))
        .got(std::to_string(request.max_gen_toks));
  if (static_cast<std::int64_t>(prompt.size()) > room) prompt.erase(prompt.begin(), prompt.end() - room);
  GenerationRequest result;
  result.prompt = std::move(prompt);
  result.sampling.temperature = request.temperature;
  result.sampling.top_p = request.top_p;
  result.sampling.seed = 1234;
  result.sampling.max_tokens = request.max_gen_toks;
  result.sampling.stop_token_ids = options.eos_token_ids;
  return result;
}

}  // namespace

std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>> encode_pair(const Tokenizer& tokenizer,
                                                                            std::string_view context,
                                                                            std::string_view continuation,
                                                                            std::int32_t prefix_token) {
  if (context.empty()) {
    auto tokens = tokenizer.encode(continuation, {.add_special_tokens = false});
    if (!tokens.empty() && tokens.front() == prefix_token) tokens.erase(tokens.begin());
    return {{prefix_token}, std::move(tokens)};
  }
  const std::size_t blanks = trailing_blanks(context);
  const std::string whole = std::string(context) + std::string(continuation);
  auto begin = tokenizer.encode(context.substr(0, context.size() - blanks));
  const auto all = tokenizer.encode(whole);
  std::vector<std::int32_t> rest;
  if (all.size() > begin.size())
    rest.assign(all.begin() + static_cast<std::ptrdiff_t>(begin.size()), all.end());
  return {std::move(begin), std::move(rest)};
}

LocalModel::LocalModel(Decoder& decoder, ThreadPool& pool, const Tokenizer& tokenizer,
                       LocalModelOptions options)
    : decoder_(decoder),
      pool_(pool),
      tokenizer_(tokenizer),
      options_(std::move(options)),
      scorer_(decoder, pool, options_.kv_cache_dtype) {}

void LocalModel::loglikelihood(std::span<const LikelihoodRequest> requests, const OnLikelihood& done) {
  const std::int32_t prefix = tokenizer_.bos_token_id().value_or(tokenizer_.eos_token_id().value_or(0));
  std::vector<ScoredSequence> sequences;
  std::vector<std::size_t> indices;
  for (std::size_t i = 0; i < requests.size(); ++i) {
    auto [begin, rest] = encode_pair(tokenizer_, requests[i].context, requests[i].continuation, prefix);
    if (rest.empty() || begin.empty()) {  // nothing is scored: certain
      done(i, {0, true});
      continue;
    }
    ScoredSequence sequence{std::move(begin), 0};
    sequence.first = static_cast<std::int64_t>(sequence.token_ids.size());
    sequence.token_ids.insert(sequence.token_ids.end(), rest.begin(), rest.end());
    const auto excess = static_cast<std::int64_t>(sequence.token_ids.size()) - (options_.max_length + 1);
    if (excess > 0) {
      sequence.token_ids.erase(sequence.token_ids.begin(), sequence.token_ids.begin() + excess);
      sequence.first = std::max<std::int64_t>(1, sequence.first - excess);
    }
    sequences.push_back(std::move(sequence));
    indices.push_back(i);
  }
  scorer_.score(sequences, [&](std::size_t i, const ContinuationScore& score) {
    done(indices[i], {score.logprob, score.greedy});
  });
}

void LocalModel::generate(std::span<const GenerateRequest> requests, const OnText& done) {
  std::vector<GenerationRequest> tokens;
  std::vector<Answer> answers;
  std::int64_t longest = 0;
  for (const GenerateRequest& request : requests) {
    tokens.push_back(generation_request(request, tokenizer_.encode(request.context), options_));
    answers.emplace_back(tokenizer_, request.until);
    longest =
        std::max(longest, static_cast<std::int64_t>(tokens.back().prompt.size()) + request.max_gen_toks);
  }
  GeneratorOptions limits;
  limits.max_num_seqs =
      std::min<std::int64_t>(options_.max_num_seqs, static_cast<std::int64_t>(tokens.size()));
  limits.max_model_len = longest;
  limits.kv_cache_dtype = options_.kv_cache_dtype;
  Generator generator(decoder_, pool_, limits);
  const auto results = generator.generate(tokens, [&](std::size_t i, std::int32_t token) {
    Answer& answer = answers[i];
    answer.text += answer.stop.push(answer.detokenizer.push(token));
    return answer.stop.matched() == nullptr;
  });
  for (std::size_t i = 0; i < answers.size(); ++i) {
    if (results[i].admission != Admission::kAccepted)
      throw Error("a prompt cannot run: {}", admission_text(results[i].admission));
    Answer& answer = answers[i];
    answer.text += answer.stop.push(answer.detokenizer.flush());
    answer.text += answer.stop.finish();
    done(i, answer.text);
  }
}

}  // namespace bise
