#include "serve/generation_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "serve/api_error.h"
#include "serve/json_text.h"
#include "serve/sampling_fields.h"

namespace bise {
namespace {

constexpr std::size_t kMaxSalt = 128, kMaxRequestId = 256;

std::string random_id() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{:016x}{:016x}", random(), random());
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

void check_model(RequestReader& reader, const ServedModel& model) {
  const auto name = reader.string("model");
  if (!name || name->empty()) return;
  if (std::find(model.names.begin(), model.names.end(), *name) != model.names.end()) return;
  std::string valid;
  for (const std::string& served : model.names) valid += (valid.empty() ? "`" : ", `") + served + "`";
  throw ApiError(404, "NotFoundError",
                 fmt::format("The model `{}` does not exist. Available: {}.", *name, valid), "model");
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
  for (const char* name :
       {"logit_bias", "stream_options", "response_format", "structured_outputs", "repetition_detection"})
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
  read_sampling_fields(reader, model, fields);
  read_prompt_fields(reader, fields);
  fields.return_tokens_as_token_ids =
      reader.boolean("return_tokens_as_token_ids").value_or(model.return_tokens_as_token_ids);
  fields.constraint = read_constraint(reader);
  reader.problems().throw_if_any();
  return fields;
}

}  // namespace bise
