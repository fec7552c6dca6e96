#include "serve/completion_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "serve/api_error.h"
#include "serve/prompt_limits.h"
#include "serve/sampling_fields.h"

namespace bise {
namespace {

constexpr std::size_t kMaxPrompts = 1024;

// A prompt as the body has it: text or ids.
struct RawPrompt {
  std::optional<std::string> text;
  std::vector<std::int64_t> ids;
};

bool is_id_list(const Json& list) {
  return !list.empty() &&
         std::all_of(list.begin(), list.end(), [](const Json& entry) { return entry.is_number_integer(); });
}

std::vector<std::int64_t> ids_of(const Json& list) {
  std::vector<std::int64_t> ids;
  ids.reserve(list.size());
  for (const Json& entry : list) {
    // What int64 does not hold is no token either.
    const auto id = lax_integer(entry);
    ids.push_back(id ? *id : -1);
  }
  return ids;
}

std::vector<RawPrompt> read_prompts(RequestReader& reader) {
  const Json* prompt = reader.any("prompt");
  const bool is_empty = !prompt || (prompt->is_string() && prompt->get_ref<const std::string&>().empty()) ||
                        (prompt->is_array() && prompt->empty());
  if (is_empty) throw bad_request("prompt must be provided and non-empty. (parameter=prompt)", "prompt");
  if (prompt->is_string()) return {{prompt->get<std::string>(), {}}};
  if (prompt->is_array() && is_id_list(*prompt)) return {{std::nullopt, ids_of(*prompt)}};
  constexpr const char* kExpected =
      "Input should be a string, a list of strings, a list of token ids or a list of lists of token ids";
  if (!prompt->is_array() || prompt->front().is_number()) {
    reader.problems().add(reader.location("prompt"), kExpected, *prompt);
    return {};
  }
  if (prompt->size() > kMaxPrompts)
    throw bad_request(fmt::format("prompt list length {} exceeds the maximum allowed count of {}.",
                                  prompt->size(), kMaxPrompts),
                      "prompt");
  std::vector<RawPrompt> prompts;
  for (std::size_t i = 0; i < prompt->size(); ++i) {
    const Json& entry = (*prompt)[i];
    const bool same_kind = entry.type() == (*prompt)[0].type();
    if (same_kind && entry.is_string()) {
      prompts.push_back({entry.get<std::string>(), {}});
    } else if (same_kind && entry.is_array() && (entry.empty() || is_id_list(entry))) {
      prompts.push_back({std::nullopt, ids_of(entry)});
    } else {
      reader.problems().add(fmt::format("{}.{}", reader.location("prompt"), i), kExpected, entry);
    }
  }
  return prompts;
}

Prompt make_prompt(RawPrompt raw, const GenerationFields& fields, const ServedModel& model) {
  Prompt prompt;
  if (raw.text) {
    prompt.token_ids = encode_prompt(*raw.text, fields, model);
    prompt.text = std::move(*raw.text);
  } else {
    prompt.token_ids = checked_prompt_ids(raw.ids, model);
    truncate_prompt(fields, model, prompt.token_ids);
  }
  if (prompt.token_ids.empty()) throw bad_request("The prompt cannot be empty", "prompt");
  if ((fields.echo || fields.return_prompt_text) && !raw.text)
    prompt.text = model.tokenizer->decode(prompt.token_ids, fields.skip_special_tokens);
  return prompt;
}

void read_logprobs(RequestReader& reader, const ServedModel& model, CompletionRequest& request) {
  SamplingParams& sampling = request.fields.sampling;
  request.logprobs = reader.integer("logprobs");
  if (!request.logprobs) {
    if (!sampling.logprob_token_ids.empty())
      throw bad_request(
          "when using `logprob_token_ids`, `logprobs` must be set. (parameter=logprob_token_ids)",
          "logprob_token_ids");
    return;
  }
  check_logprobs(*request.logprobs, "sample", "logprobs", model);
  sampling.logprobs = *request.logprobs;
  // Echoed tokens are scored like the others.
  if (request.fields.echo && sampling.prompt_logprobs == SamplingParams::kNoLogprobs)
    sampling.prompt_logprobs = *request.logprobs;
}

}  // namespace

CompletionRequest read_completion_request(const Json& body, const HttpRequest& http,
                                          const ServedModel& model) {
  Problems problems;
  RequestReader reader(body, "body", problems);
  CompletionRequest request;
  check_model(reader, model);
  std::vector<RawPrompt> prompts = read_prompts(reader);
  reader.integer("logprobs");
  reader.string("suffix");
  GenerationFields& fields = request.fields;
  fields = read_generation_fields(reader, http, model);
  fields.add_special_tokens = reader.boolean("add_special_tokens").value_or(true);
  if (!reader.string("suffix").value_or("").empty())
    throw bad_request("suffix is not supported: the model has no fill-in-the-middle template.", "suffix");
  read_logprobs(reader, model, request);
  fields.max_tokens = reader.integer("max_tokens").value_or(16);
  request.prompt_only = fields.echo && *fields.max_tokens == 0;
  check_max_tokens(*fields.max_tokens, "max_tokens", request.prompt_only ? 0 : 1, model);
  if (request.prompt_only) fields.max_tokens = 1;  // the engine's least
  for (RawPrompt& raw : prompts) request.prompts.push_back(make_prompt(std::move(raw), fields, model));
  return request;
}

}  // namespace bise
