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

  // Whether the text ends with this token.
  bool take(std::int32_t token) {
    if (std::ranges::find(stop_tokens, token) != stop_tokens.end()) return true;
    text += stop.push(detokenizer.push(token));
    return stop.matched() != nullptr;
  }
  void finish() {
    text += stop.push(detokenizer.flush());
    text += stop.finish();
  }

  StreamDetokenizer detokenizer;
  StopStrings stop;
  std::vector<std::int32_t> stop_tokens = {};
  std::int64_t tokens = 0;
  std::string text = {};
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
  return result;
}

}  // namespace

std::vector<std::int32_t> encode_text(const Tokenizer& tokenizer, std::string_view text, bool special) {
  const auto bos = tokenizer.bos_token_id();
  if (bos && !tokenizer.token_bytes(*bos).empty() && text.starts_with(tokenizer.token_bytes(*bos)))
    special = false;
  return tokenizer.encode(text, {.add_special_tokens = special});
}

std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>> encode_pair(const EncodeText& encode,
                                                                            std::string_view context,
                                                                            std::string_view continuation,
                                                                            std::int32_t prefix_token) {
  if (context.empty()) {
    auto tokens = encode(continuation, false);
    if (!tokens.empty() && tokens.front() == prefix_token) tokens.erase(tokens.begin());
    return {{prefix_token}, std::move(tokens)};
  }
  const std::size_t blanks = trailing_blanks(context);
  const std::string whole = std::string(context) + std::string(continuation);
  auto begin = encode(context.substr(0, context.size() - blanks), true);
  const auto all = encode(whole, true);
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

std::vector<ScoredSequence> rolling_windows(const std::vector<std::int32_t>& tokens,
                                            std::int32_t prefix_token, std::int64_t window) {
  std::vector<ScoredSequence> windows;
  const auto count = static_cast<std::int64_t>(tokens.size());
  for (std::int64_t predicted = 0; predicted < count;) {
    const std::int64_t end = std::min(count, predicted + window),
                       begin = std::max<std::int64_t>(0, end - window - 1);
    ScoredSequence sequence;
    if (predicted == 0) sequence.token_ids.push_back(prefix_token);
    sequence.token_ids.insert(sequence.token_ids.end(), tokens.begin() + begin, tokens.begin() + end);
    sequence.first = predicted == 0 ? 1 : predicted - begin;
    windows.push_back(std::move(sequence));
    predicted = end;
  }
  return windows;
}

std::vector<ScoredSequence> sequences_of(const LikelihoodRequest& request, const EncodeText& encode,
                                         std::int32_t prefix_token, std::int64_t max_length) {
  if (request.rolling) return rolling_windows(encode(request.continuation, true), prefix_token, max_length);
  auto [begin, rest] = encode_pair(encode, request.context, request.continuation, prefix_token);
  if (rest.empty() || begin.empty()) return {};
  ScoredSequence sequence{std::move(begin), 0};
  sequence.first = static_cast<std::int64_t>(sequence.token_ids.size());
  sequence.token_ids.insert(sequence.token_ids.end(), rest.begin(), rest.end());
  const auto excess = static_cast<std::int64_t>(sequence.token_ids.size()) - (max_length + 1);
  if (excess > 0) {
    sequence.token_ids.erase(sequence.token_ids.begin(), sequence.token_ids.begin() + excess);
    sequence.first = std::max<std::int64_t>(1, sequence.first - excess);
  }
  return {std::move(sequence)};
}

void LocalModel::loglikelihood(std::span<const LikelihoodRequest> requests, const OnLikelihood& done) {
  const std::int32_t prefix = tokenizer_.bos_token_id().value_or(tokenizer_.eos_token_id().value_or(0));
  const EncodeText encode = [&](std::string_view text, bool special) {
    return encode_text(tokenizer_, text, special);
  };
  std::vector<ScoredSequence> sequences;
  std::vector<std::size_t> request_of;
  std::vector<Likelihood> answers(requests.size(), {0, true});
  std::vector<std::size_t> missing(requests.size());
  for (std::size_t i = 0; i < requests.size(); ++i) {
    for (ScoredSequence& sequence : sequences_of(requests[i], encode, prefix, options_.max_length)) {
      sequences.push_back(std::move(sequence));
      request_of.push_back(i);
      ++missing[i];
    }
    if (missing[i] == 0) done(i, answers[i]);
  }
  scorer_.score(sequences, [&](std::size_t s, const ContinuationScore& score) {
    const std::size_t i = request_of[s];
    answers[i].logprob += score.logprob;
    answers[i].greedy &= score.greedy;
    if (--missing[i] == 0) done(i, answers[i]);
  });
}

// Stop tokens are looked for here, not by the engine: so every answer is heard of when it ends.
void LocalModel::generate(std::span<const GenerateRequest> requests, const OnText& done) {
  std::vector<GenerationRequest> tokens;
  std::vector<Answer> answers;
  std::int64_t longest = 0;
  for (const GenerateRequest& request : requests) {
    tokens.push_back(generation_request(request, encode_text(tokenizer_, request.context), options_));
    Answer& answer = answers.emplace_back(tokenizer_, request.until);
    answer.stop_tokens = options_.eos_token_ids;
    for (const std::string& stop : request.until)  // the text of a control token is never seen
      if (const auto token = tokenizer_.id_of(stop); token && tokenizer_.is_special(*token))
        answer.stop_tokens.push_back(*token);
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
    const bool ends = answer.take(token) || ++answer.tokens == requests[i].max_gen_toks;
    if (ends) {
      answer.finish();
      done(i, answer.text);
    }
    return !ends;
  });
  for (const GenerationResult& result : results)
    if (result.admission != Admission::kAccepted)
      throw Error("a prompt cannot run: {}", admission_text(result.admission));
}

}  // namespace bise
