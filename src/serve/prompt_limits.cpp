#include "serve/prompt_limits.h"

#include <fmt/format.h>

#include <algorithm>

#include "serve/sampling_fields.h"

namespace bise {

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

}  // namespace bise
