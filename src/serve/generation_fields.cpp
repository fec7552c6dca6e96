#include "serve/generation_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "serve/api_error.h"
#include "serve/json_text.h"

namespace bise {
namespace {

constexpr std::int64_t kMaxN = 16384;
constexpr std::size_t kMaxStop = 4, kMaxBadWords = 128, kMaxLogprobTokenIds = 128, kMaxSalt = 128;
constexpr std::size_t kMaxRequestId = 256;

template <class T>
void check_range(bool inside, const char* param, const char* rule, T value) {
  if (!inside)
    throw field_error(fmt::format("{} {}, got {}.", param, rule, value), param, fmt::format("{}", value));
}

std::string random_id() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{:016x}{:016x}", random(), random());
}

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

void read_stream_options(RequestReader& reader, const ServedModel& model, GenerationFields& fields) {
  fields.stream = reader.boolean("stream").value_or(false);
  if (const Json* options = reader.object("stream_options")) {
    if (!fields.stream && !options->empty())
      throw bad_request("Stream options can only be defined when `stream=True`. (parameter=stream_options)",
                        "stream_options");
    RequestReader inner(*options, reader.location("stream_options"), reader.problems());
    fields.include_usage = inner.boolean("include_usage").value_or(false);
    fields.continuous_usage = fields.include_usage && inner.boolean("continuous_usage_stats").value_or(false);
  }
  if (fields.stream && model.enable_force_include_usage)
    fields.include_usage = fields.continuous_usage = true;
  const std::int64_t interval = reader.integer("stream_interval").value_or(model.stream_interval);
  check_range(interval >= 1, "stream_interval", "must be at least 1", interval);
  fields.stream_interval = std::max(interval, model.stream_interval);
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

void read_prompt_fields(RequestReader& reader, GenerationFields& fields) {
  fields.truncate_prompt_tokens = reader.integer("truncate_prompt_tokens");
  if (fields.truncate_prompt_tokens)
    check_range(*fields.truncate_prompt_tokens >= -1, "truncate_prompt_tokens",
                "must be greater than or equal to -1", *fields.truncate_prompt_tokens);
  if (const auto side = reader.string("truncation_side")) {
    if (*side != "left" && *side != "right")
      reader.problems().add(reader.location("truncation_side"), "Input should be 'left' or 'right'",
                            *reader.any("truncation_side"));
    fields.truncate_right = *side == "right";
  }
  fields.echo = reader.boolean("echo").value_or(false);
  fields.return_token_ids = reader.boolean("return_token_ids").value_or(false);
  fields.return_prompt_text = reader.boolean("return_prompt_text").value_or(false);
}

void check_salt(const std::string& salt) {
  if (salt.empty() || salt.size() > kMaxSalt ||
      salt.find_first_of(std::string_view("@/\\\0", 4)) != std::string::npos)
    throw bad_request(
        "Parameter 'cache_salt' must be a non-empty string of at most 128 characters without "
        "'@', '/', '\\' and NUL. (parameter=cache_salt)",
        "cache_salt");
}

void read_identity(RequestReader& reader, const HttpRequest& request, const ServedModel& model,
                   GenerationFields& fields) {
  fields.request_id = reader.string("request_id").value_or("");
  if (const auto header = request.headers.find("x-request-id"); header && !header->empty())
    fields.request_id = valid_utf8(*header);
  if (fields.request_id.size() > kMaxRequestId)
    throw bad_request(fmt::format("request_id has more than {} bytes", kMaxRequestId), "request_id");
  if (fields.request_id.empty()) fields.request_id = random_id();
  reader.string("session_id");
  if (const auto salt = reader.string("cache_salt")) {
    check_salt(*salt);
    fields.cache_salt = *salt;
  }
  fields.priority = reader.integer("priority").value_or(0);
  if (const auto header = request.headers.find("x-vllm-priority")) {
    const auto value = lax_integer(Json(std::string(*header)));
    if (!value) throw validation_error("Input should be a valid integer", "header.x-vllm-priority");
    fields.priority = *value;
  }
  if (fields.priority != 0 && !model.priority_scheduling)
    throw bad_request(fmt::format("Got priority {} but Priority scheduling is not enabled.", fields.priority),
                      "priority");
}

}  // namespace

ApiError field_error(const std::string& message, const std::string& param, const std::string& value) {
  return bad_request(fmt::format("{} (parameter={}, value={})", message, param, value), param);
}

ApiError prompt_too_long(std::int64_t prompt_tokens, std::optional<std::int64_t> max_tokens,
                         const ServedModel& model) {
  std::string message =
      fmt::format("This model's maximum context length is {} tokens. However, ", model.max_model_len);
  if (max_tokens && *max_tokens > 0) {
    message += fmt::format(
        "you requested {} output tokens and your prompt contains {} input tokens, for a "
        "total of {} tokens. Please reduce the length of the input prompt or the number of "
        "requested output tokens.",
        *max_tokens, prompt_tokens, prompt_tokens + *max_tokens);
  } else {
    message += fmt::format(
        "your prompt contains {} input tokens, and there must be room for one output token. "
        "Please reduce the length of the input prompt.",
        prompt_tokens);
  }
  return field_error(message, "input_tokens", fmt::format("{}", prompt_tokens));
}

void check_model(RequestReader& reader, const ServedModel& model) {
  const auto name = reader.string("model");
  if (!name || name->empty()) return;
  if (std::find(model.names.begin(), model.names.end(), *name) != model.names.end()) return;
  std::string valid;
  for (const std::string& served : model.names) valid += (valid.empty() ? "`" : ", `") + served + "`";
  throw ApiError(404, "NotFoundError",
                 fmt::format("The model `{}` does not exist. Available: {}.", *name, valid), "model");
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

GenerationFields read_generation_fields(RequestReader& reader, const HttpRequest& request,
                                        const ServedModel& model) {
  GenerationFields fields;
  // The types of all fields are looked at before any range is: one answer shows all that is wrong.
  for (const char* name : {"temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty",
                           "frequency_penalty", "length_penalty"})
    reader.number(name);
  for (const char* name : {"top_k", "min_tokens", "seed", "n", "max_tokens", "prompt_logprobs", "priority",
                           "stream_interval", "truncate_prompt_tokens"})
    reader.integer(name);
  for (const char* name : {"stream", "echo", "ignore_eos", "use_beam_search", "skip_special_tokens",
                           "include_stop_str_in_output", "spaces_between_special_tokens", "return_token_ids",
                           "return_tokens_as_token_ids", "return_prompt_text", "add_special_tokens"})
    reader.boolean(name);
  reader.strings("stop", true);
  reader.strings("bad_words");
  for (const char* name : {"stop_token_ids", "allowed_token_ids", "logprob_token_ids"}) reader.integers(name);
  for (const char* name : {"logit_bias", "stream_options", "response_format", "structured_outputs"})
    reader.object(name);
  for (const char* name : {"request_id", "session_id", "cache_salt", "truncation_side"}) reader.string(name);
  reader.problems().throw_if_any();

  if (reader.boolean("use_beam_search").value_or(false))
    throw bad_request("use_beam_search is not supported by this server.", "use_beam_search");
  if (reader.number("length_penalty").value_or(1) != 1)
    throw bad_request("length_penalty is not supported by this server: it belongs to beam search.",
                      "length_penalty");
  read_identity(reader, request, model, fields);
  read_stream_options(reader, model, fields);
  read_ranges(reader, model, fields);
  read_stop(reader, model, fields);
  read_vocabulary_fields(reader, model, fields);
  read_prompt_fields(reader, fields);
  fields.return_tokens_as_token_ids =
      reader.boolean("return_tokens_as_token_ids").value_or(model.return_tokens_as_token_ids);
  fields.constraint = read_constraint(reader);
  reader.problems().throw_if_any();
  return fields;
}

void check_max_tokens(std::int64_t max_tokens, const char* param, std::int64_t least,
                      const ServedModel& model) {
  check_range(max_tokens >= least, param, "must be at least 1", max_tokens);
  if (max_tokens > model.max_model_len)
    throw field_error(
        fmt::format("{}={} cannot be greater than max_model_len={}. Please request fewer output "
                    "tokens.",
                    param, max_tokens, model.max_model_len),
        param, fmt::format("{}", max_tokens));
}

void check_text_length(std::size_t bytes, const GenerationFields& fields, const ServedModel& model) {
  if (fields.truncate_prompt_tokens || model.longest_token_bytes == 0) return;
  const auto size = static_cast<std::int64_t>(bytes);
  if (size / model.longest_token_bytes < model.max_model_len) return;
  throw field_error(
      fmt::format("This model's maximum context length is {} tokens. However, your request has {} "
                  "input bytes, more than that many tokens can stand for. Please reduce the "
                  "length of the input.",
                  model.max_model_len, bytes),
      "input_text", fmt::format("{}", bytes));
}

std::vector<std::int32_t> encode_prompt(const std::string& text, const GenerationFields& fields,
                                        const ServedModel& model) {
  check_text_length(text.size(), fields, model);
  auto ids = model.tokenizer->encode(text, {.add_special_tokens = fields.add_special_tokens});
  truncate_prompt(fields, model, ids);
  return ids;
}

std::vector<std::int32_t> checked_prompt_ids(const std::vector<std::int64_t>& ids, const ServedModel& model) {
  std::vector<std::int32_t> result;
  result.reserve(ids.size());
  for (const std::int64_t id : ids) {
    if (id < 0 || id >= model.vocab_size)
      throw bad_request(fmt::format("Token id {} is out of vocabulary", id), "prompt");
    result.push_back(static_cast<std::int32_t>(id));
  }
  return result;
}

SamplingParams sampling_for_prompt(const GenerationFields& fields, std::int64_t prompt_tokens,
                                   const ServedModel& model) {
  if (prompt_tokens >= model.max_model_len) throw prompt_too_long(prompt_tokens, fields.max_tokens, model);
  SamplingParams params = fields.sampling;
  params.max_tokens = model.max_model_len - prompt_tokens;
  if (fields.max_tokens) params.max_tokens = std::min(params.max_tokens, *fields.max_tokens);
  if (model.defaults.max_new_tokens)
    params.max_tokens =
        std::min(params.max_tokens, std::max<std::int64_t>(*model.defaults.max_new_tokens, 1));
  if (params.min_tokens > params.max_tokens)
    throw field_error(fmt::format("min_tokens must be less than or equal to max_tokens={}, got {}.",
                                  params.max_tokens, params.min_tokens),
                      "min_tokens", fmt::format("{}", params.min_tokens));
  return params;
}

void truncate_prompt(const GenerationFields& fields, const ServedModel& model,
                     std::vector<std::int32_t>& prompt) {
  if (!fields.truncate_prompt_tokens) return;
  const std::int64_t output =
      std::clamp<std::int64_t>(fields.max_tokens.value_or(1), 1, model.max_model_len - 1);
  const std::int64_t limit =
      *fields.truncate_prompt_tokens == -1 ? model.max_model_len - output : *fields.truncate_prompt_tokens;
  const auto size = static_cast<std::int64_t>(prompt.size());
  if (size <= limit) return;
  if (fields.truncate_right) {
    prompt.resize(static_cast<std::size_t>(limit));
  } else {
    prompt.erase(prompt.begin(), prompt.end() - limit);
  }
}

}  // namespace bise
