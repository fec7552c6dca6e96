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

}  // namespace bise
