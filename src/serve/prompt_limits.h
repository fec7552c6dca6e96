// How a prompt and the limits of its answer fit the model's context. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "serve/api_error.h"
#include "serve/generation_fields.h"

namespace bise {

// Checks a limit of generated tokens that was asked for.
void check_max_tokens(std::int64_t max_tokens, const char* param, std::int64_t least,
                      const ServedModel& model);

// The ids of `text`. Throws ApiError when it cannot fit the context whatever its tokens are.
std::vector<std::int32_t> encode_prompt(const std::string& text, const GenerationFields& fields,
                                        const ServedModel& model);
void check_text_length(std::size_t bytes, const GenerationFields& fields, const ServedModel& model);

// Ids given as a prompt. Throws ApiError for one outside the vocabulary.
std::vector<std::int32_t> checked_prompt_ids(const std::vector<std::int64_t>& ids, const ServedModel& model);

// Cuts `prompt` as truncate_prompt_tokens says.
void truncate_prompt(const GenerationFields& fields, const ServedModel& model,
                     std::vector<std::int32_t>& prompt);

// The sampling parameters for a prompt of `prompt_tokens`: max_tokens is what was asked for, within the
// context and the model's own cap. Throws ApiError when the prompt fills the context or min_tokens exceeds
// max_tokens.
SamplingParams sampling_for_prompt(const GenerationFields& fields, std::int64_t prompt_tokens,
                                   const ServedModel& model);

// The message that clients recognise by its beginning: "This model's maximum context length is N tokens.".
ApiError prompt_too_long(std::int64_t prompt_tokens, std::optional<std::int64_t> max_tokens,
                         const ServedModel& model);

}  // namespace bise
