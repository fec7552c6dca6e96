#include "serve/sampling_fields.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

namespace bise {
namespace {

constexpr std::int64_t kMaxN = 16384;
constexpr std::size_t kMaxStop = 4, kMaxBadWords = 128, kMaxLogprobTokenIds = 128;

// Ids that index the logits.
std::vector<std::int32_t> checked_ids(const std::vector<std::int64_t>& ids, const char* param,
                                      const ServedModel& model) {
  std::vector<std::int32_t> result;
  for (const std::int64_t id : ids) {
    if (id < 0 || id >= model.vocab_size) {
      throw field_error(
          fmt::format("token_id(s) [{}] in {} contain out-of-vocab token ids. Vocabulary size: {}", id, param,
                      model.vocab_size),
          param, fmt::format("[{}]", id));
    }
    result.push_back(static_cast<std::int32_t>(id));
  }
  return result;
}

void read_ranges(RequestReader& reader, const ServedModel& model, GenerationFields& fields) {
  const SamplingDefaults& defaults = model.defaults;
  SamplingParams& params = fields.sampling;
  params.temperature = reader.number("temperature").value_or(defaults.temperature.value_or(1));
  check_range(params.temperature >= 0, "temperature", "must be non-negative", params.temperature);
  check_range(params.temperature <= 2, "temperature", "must be in [0, 2]", params.temperature);
  // Closer to 0 the quotients lose their meaning.
  if (!params.greedy()) params.temperature = std::max(params.temperature, 0.01);
  params.top_p = reader.number("top_p").value_or(defaults.top_p.value_or(1));
  check_range(params.top_p > 0 && params.top_p <= 1, "top_p", "must be in (0, 1]", params.top_p);
  params.top_k = reader.integer("top_k").value_or(defaults.top_k.value_or(0));
  check_range(params.top_k >= -1, "top_k", "must be 0 (disable), or at least 1", params.top_k);
  params.top_k = std::clamp<std::int64_t>(params.top_k, 0, model.vocab_size);
  params.min_p = reader.number("min_p").value_or(defaults.min_p.value_or(0));
  check_range(params.min_p >= 0 && params.min_p <= 1, "min_p", "must be in [0, 1]", params.min_p);
  params.repetition_penalty =
      reader.number("repetition_penalty").value_or(defaults.repetition_penalty.value_or(1));
  check_range(params.repetition_penalty > 0, "repetition_penalty", "must be greater than zero",
              params.repetition_penalty);
  params.presence_penalty = reader.number("presence_penalty").value_or(0);
  check_range(std::abs(params.presence_penalty) <= 2, "presence_penalty", "must be in [-2, 2]",
              params.presence_penalty);
  params.frequency_penalty = reader.number("frequency_penalty").value_or(0);
  check_range(std::abs(params.frequency_penalty) <= 2, "frequency_penalty", "must be in [-2, 2]",
              params.frequency_penalty);
  params.min_tokens = reader.integer("min_tokens").value_or(0);
  check_range(params.min_tokens >= 0, "min_tokens", "must be greater than or equal to 0", params.min_tokens);
  const std::int64_t seed = reader.integer("seed").value_or(-1);
  if (seed != -1) params.seed = static_cast<std::uint64_t>(seed);
  fields.n = reader.integer("n").value_or(1);
  check_range(fields.n >= 1, "n", "must be at least 1", fields.n);
  check_range(fields.n <= kMaxN, "n", "must be at most 16384", fields.n);
  if (fields.n > 1 && params.greedy())
    throw field_error(fmt::format("n must be 1 when using greedy sampling, got {}.", fields.n), "n",
                      fmt::format("{}", fields.n));
}

void read_stop(RequestReader& reader, const ServedModel& model, GenerationFields& fields) {
  fields.stop = reader.strings("stop", true).value_or(std::vector<std::string>());
  if (fields.stop.size() > kMaxStop)
    throw field_error(fmt::format("stop must be at most {} strings, got {}.", kMaxStop, fields.stop.size()),
                      "stop", fmt::format("{}", fields.stop.size()));
  if (std::find(fields.stop.begin(), fields.stop.end(), "") != fields.stop.end())
    throw bad_request("stop cannot contain an empty string.", "stop");
  fields.include_stop_str_in_output = reader.boolean("include_stop_str_in_output").value_or(false);
  fields.ignore_eos = reader.boolean("ignore_eos").value_or(false);
  fields.skip_special_tokens = reader.boolean("skip_special_tokens").value_or(true);
  reader.boolean("spaces_between_special_tokens");  // both values mean the same to these tokenizers
  SamplingParams& params = fields.sampling;
  if (const auto ids = reader.integers("stop_token_ids"))
    params.stop_token_ids = checked_ids(*ids, "stop_token_ids", model);
  if (!fields.ignore_eos)
    params.stop_token_ids.insert(params.stop_token_ids.end(), model.eos_token_ids.begin(),
                                 model.eos_token_ids.end());
}

void read_repetition_detection(RequestReader& reader, SamplingParams& params) {
  const Json* object = reader.object("repetition_detection");
  if (!object) return;
  RequestReader inner(*object, reader.location("repetition_detection"), reader.problems());
  RepetitionDetection& detection = params.repetition_detection;
  detection.max_pattern_size = inner.integer("max_pattern_size").value_or(0);
  detection.min_pattern_size = inner.integer("min_pattern_size").value_or(0);
  detection.min_count = inner.integer("min_count").value_or(0);
  check_range(detection.max_pattern_size >= 0, "max_pattern_size", "must be at least 0",
              detection.max_pattern_size);
  check_range(detection.min_pattern_size >= 0 && detection.min_pattern_size <= detection.max_pattern_size,
              "min_pattern_size", "must be at least 0 and at most max_pattern_size",
              detection.min_pattern_size);
  check_range(detection.max_pattern_size == 0 || detection.min_count >= 2, "min_count",
              "must be at least 2 when max_pattern_size is set", detection.min_count);
}

// As vLLM: the word as a start of text and, where that is as many tokens, after a space.
std::vector<std::vector<std::int32_t>> bad_word_tokens(const std::vector<std::string>& words,
                                                       const Tokenizer& tokenizer) {
  std::vector<std::vector<std::int32_t>> result;
  for (const std::string& word : words) {
    if (word.empty()) throw bad_request("bad_words cannot contain an empty string.", "bad_words");
    const std::string bare = word.substr(std::min(word.find_first_not_of(' '), word.size()));
    const auto plain = tokenizer.encode(bare, {.add_special_tokens = false});
    if (plain.empty())
      throw bad_request("bad_words entries must tokenize to at least one token. (parameter=bad_words)",
                        "bad_words");
    const auto spaced = tokenizer.encode(" " + bare, {.add_special_tokens = false});
    result.push_back(plain);
    if (spaced.size() == plain.size() && spaced[0] != plain[0]) result.push_back(spaced);
  }
  if (result.size() > kMaxBadWords)
    throw bad_request(fmt::format("Too many bad words after tokenization: {}. The max number is {}.",
                                  result.size(), kMaxBadWords),
                      "bad_words");
  return result;
}

void read_logit_bias(RequestReader& reader, const ServedModel& model, SamplingParams& params) {
  const Json* bias = reader.object("logit_bias");
  if (!bias) return;
  for (const auto& [key, value] : bias->items()) {
    std::int64_t id = 0;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size())
      throw field_error(
          "logit_bias contains key(s) that cannot be converted to integer token IDs: ['" + key + "']",
          "logit_bias", "['" + key + "']");
    if (!value.is_number()) {
      reader.problems().add(reader.location("logit_bias") + "." + key, "Input should be a valid number",
                            value);
      continue;
    }
    const double clamped = std::clamp(value.get<double>(), -100.0, 100.0);
    params.logit_bias.emplace_back(checked_ids({id}, "logit_bias", model)[0], static_cast<float>(clamped));
  }
}

void read_vocabulary_fields(RequestReader& reader, const ServedModel& model, GenerationFields& fields) {
  SamplingParams& params = fields.sampling;
  read_logit_bias(reader, model, params);
  if (const auto ids = reader.integers("allowed_token_ids")) {
    if (ids->empty() && reader.any("allowed_token_ids")->empty())
      throw field_error("allowed_token_ids is not None and empty!", "allowed_token_ids", "[]");
    params.allowed_token_ids = checked_ids(*ids, "allowed_token_ids", model);
  }
  if (const auto words = reader.strings("bad_words")) {
    if (words->size() > kMaxBadWords)
      throw bad_request(
          fmt::format("Too many bad words: {}. The max number is {}.", words->size(), kMaxBadWords),
          "bad_words");
    params.bad_words = bad_word_tokens(*words, *model.tokenizer);
  }
  if (const auto ids = reader.integers("logprob_token_ids")) {
    if (ids->size() > kMaxLogprobTokenIds)
      throw field_error(fmt::format("Requested logprob_token_ids of length {}, which is greater than max "
                                    "allowed: {}",
                                    ids->size(), kMaxLogprobTokenIds),
                        "logprob_token_ids", fmt::format("{}", ids->size()));
    params.logprob_token_ids = checked_ids(*ids, "logprob_token_ids", model);
  }
  if (const auto count = reader.integer("prompt_logprobs")) {
    if (fields.stream && *count != 0)
      throw bad_request("`prompt_logprobs` are not available when `stream=True`. (parameter=prompt_logprobs)",
                        "prompt_logprobs");
    check_logprobs(*count, "prompt", "prompt_logprobs", model);
    params.prompt_logprobs = *count;
    fields.show_prompt_logprobs = true;
  }
}

}  // namespace

void read_sampling_fields(RequestReader& reader, const ServedModel& model, GenerationFields& fields) {
  read_ranges(reader, model, fields);
  read_stop(reader, model, fields);
  read_repetition_detection(reader, fields.sampling);
  read_vocabulary_fields(reader, model, fields);
}

void check_logprobs(std::int64_t count, const char* kind, const char* param, const ServedModel& model) {
  if (count < -1)
    throw field_error(fmt::format("`{}` must be a positive value or -1.", param), param,
                      fmt::format("{}", count));
  const std::int64_t wanted = count == -1 ? model.vocab_size : count;
  const std::int64_t allowed = model.max_logprobs == -1 ? model.vocab_size : model.max_logprobs;
  if (wanted > allowed)
    throw field_error(fmt::format("Requested {} logprobs of {}, which is greater than max allowed: {}", kind,
                                  wanted, allowed),
                      param, fmt::format("{}", wanted));
}

}  // namespace bise
