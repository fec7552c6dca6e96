// The request fields that chat completions and completions share (spec/serving.md section 1.4): read from
// the body, completed from the server's defaults, checked. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "net/http_message.h"
#include "serve/request_reader.h"
#include "serve/served_model.h"
#include "serve/structured_output.h"

namespace bise {

struct GenerationFields {
  std::string request_id;  // without the "cmpl-" before it
  std::string cache_salt;
  std::int64_t priority = 0;
  std::int64_t n = 1;

  bool stream = false, include_usage = false, continuous_usage = false;
  std::int64_t stream_interval = 1;

  // Everything but max_tokens, which depends on the prompt.
  SamplingParams sampling;
  std::optional<std::int64_t> max_tokens;  // absent: the rest of the context
  std::vector<std::string> stop;
  bool include_stop_str_in_output = false, ignore_eos = false, skip_special_tokens = true;

  std::optional<std::int64_t> truncate_prompt_tokens;  // -1: to what the context holds
  bool truncate_right = false;                         // drops the end of the prompt instead of its start
  bool add_special_tokens = true;
  bool echo = false;
  bool show_prompt_logprobs = false;  // asked for by name, not for echo's sake
  bool return_tokens_as_token_ids = false, return_token_ids = false, return_prompt_text = false;
  std::optional<ConstraintSpec> constraint;
};

// Fails when `model` of the body is none of the served names: ApiError 404. An empty one means the model.
void check_model(RequestReader& reader, const ServedModel& model);

// Reads and checks all of them; problems of type go to the reader's Problems, ranges and combinations throw
// ApiError (400) at once where no problem of type was found before.
GenerationFields read_generation_fields(RequestReader& reader, const HttpRequest& request,
                                        const ServedModel& model);

// Checks a count of log-probabilities against the server's cap; `kind` is "sample" or "prompt".
void check_logprobs(std::int64_t count, const char* kind, const char* param, const ServedModel& model);

// Checks a limit of generated tokens that was asked for.
void check_max_tokens(std::int64_t max_tokens, const char* param, std::int64_t least,
                      const ServedModel& model);

// The sampling parameters for a prompt of `prompt_tokens`: max_tokens is what was asked for, within the
// context and the model's own cap. Throws ApiError when the prompt fills the context or min_tokens exceeds
// max_tokens.
SamplingParams sampling_for_prompt(const GenerationFields& fields, std::int64_t prompt_tokens,
                                   const ServedModel& model);

// The ids of `text`, which was refused before (ApiError) when it cannot fit the context whatever its tokens
// are.
std::vector<std::int32_t> encode_prompt(const std::string& text, const GenerationFields& fields,
                                        const ServedModel& model);
void check_text_length(std::size_t bytes, const GenerationFields& fields, const ServedModel& model);

// Ids given as a prompt. Throws ApiError for one outside the vocabulary.
std::vector<std::int32_t> checked_prompt_ids(const std::vector<std::int64_t>& ids, const ServedModel& model);

// Cuts `prompt` as truncate_prompt_tokens says.
void truncate_prompt(const GenerationFields& fields, const ServedModel& model,
                     std::vector<std::int32_t>& prompt);

// "message (parameter=param, value=value)", as vLLM ends such messages.
class ApiError;
ApiError field_error(const std::string& message, const std::string& param, const std::string& value);

// The message that clients recognise by its beginning: "This model's maximum context length is N tokens.".
ApiError prompt_too_long(std::int64_t prompt_tokens, std::optional<std::int64_t> max_tokens,
                         const ServedModel& model);

}  // namespace bise
