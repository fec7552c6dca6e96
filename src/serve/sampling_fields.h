// The request fields that decide how tokens are drawn and when drawing ends. Any thread.
#pragma once

#include <fmt/format.h>

#include <cstdint>

#include "serve/api_error.h"
#include "serve/generation_fields.h"

namespace bise {

// Throws ApiError (400), "PARAM RULE, got VALUE.", unless `inside`.
template <class T>
void check_range(bool inside, const char* param, const char* rule, T value) {
  if (inside) return;
  throw field_error(fmt::format("{} {}, got {}.", param, rule, value), param, fmt::format("{}", value));
}

// Fills in fields.sampling (but for max_tokens), n and the stop rules: request, else server default, else
// neutral. fields.stream must be read. Throws ApiError.
void read_sampling_fields(RequestReader& reader, const ServedModel& model, GenerationFields& fields);

// Checks a count of log-probabilities against the server's cap; `kind` is "sample" or "prompt".
void check_logprobs(std::int64_t count, const char* kind, const char* param, const ServedModel& model);

}  // namespace bise
