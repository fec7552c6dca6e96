// Answers of the routes that need no engine: POST /tokenize, POST /detokenize, GET /v1/models. Any thread.
#pragma once

#include <string>

#include "base/json.h"
#include "serve/served_model.h"

namespace bise {

// {"count", "max_model_len", "tokens", "token_strs"} of a prompt or of messages. Throws ApiError.
std::string tokenize_answer(const Json& body, const ServedModel& model);

// {"prompt"} of token ids. Throws ApiError for an id outside the vocabulary.
std::string detokenize_answer(const Json& body, const ServedModel& model);

// One card for each served name.
std::string models_answer(const ServedModel& model);

}  // namespace bise
