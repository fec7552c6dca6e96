// The body of POST /v1/completions. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "net/http_message.h"
#include "serve/generation_fields.h"
#include "serve/served_model.h"

namespace bise {

struct Prompt {
  std::vector<std::int32_t> token_ids;
  std::string text;  // as given, or decoded; filled in only where the answer shows it
};

struct CompletionRequest {
  GenerationFields fields;
  std::vector<Prompt> prompts;
  std::optional<std::int64_t> logprobs;
  bool prompt_only = false;  // echo with max_tokens 0: nothing generated is shown
};

// Reads, checks and tokenizes. Throws ApiError.
CompletionRequest read_completion_request(const Json& body, const HttpRequest& request,
                                          const ServedModel& model);

}  // namespace bise
