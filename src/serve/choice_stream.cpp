#include "serve/choice_stream.h"

#include <algorithm>
#include <iterator>

namespace bise {
namespace {

// Tokens of the prompt that the detokenizer sees first, so that the answer goes on with its text: whether a
// space stands before the first word depends on what came before.
constexpr std::size_t kContextTokens = 6;

}  // namespace

ChoiceStream::ChoiceStream(const GenerationFields& fields, const ServedModel& model,
                           std::span<const std::int32_t> prompt, std::span<const std::int32_t> visible)
    : fields_(fields),
      model_(model),
      visible_(visible),
      detokenizer_(*model.tokenizer, fields.skip_special_tokens && visible.empty()),
      stops_(fields.stop, fields.include_stop_str_in_output) {
  for (const std::int32_t token : prompt.last(std::min(prompt.size(), kContextTokens))) text_of(token);
}

std::string ChoiceStream::text_of(std::int32_t token) {
  if (fields_.skip_special_tokens && !visible_.empty() && model_.tokenizer->is_special(token) &&
      std::find(visible_.begin(), visible_.end(), token) == visible_.end())
    return {};
  return detokenizer_.push(token);
}

void ChoiceStream::push(RequestOutput&& output) {
  if (finish_reason_) return;
  cached_tokens_ = std::max(cached_tokens_, output.cached_tokens);
  if (!output.prompt_logprobs.empty()) delta_.prompt_logprobs = std::move(output.prompt_logprobs);
  for (std::size_t i = 0; i < output.token_ids.size() && !stops_.matched(); ++i) {
    const std::int32_t token = output.token_ids[i];
    ++generated_;
    ++delta_.tokens;
    delta_.token_ids.push_back(token);
    if (i < output.logprobs.size()) delta_.logprobs.push_back(std::move(output.logprobs[i]));
    const bool ends = i + 1 == output.token_ids.size() && output.finish_reason == FinishReason::kStop &&
                      token == output.stop_token_id;
    if (ends && !fields_.include_stop_str_in_output) break;
    delta_.text += stops_.push(text_of(token), generated_ > fields_.sampling.min_tokens);
  }
  if (stops_.matched()) {
    finish_reason_ = FinishReason::kStop;
  } else if (output.finish_reason) {
    finish(output);
  }
}

void ChoiceStream::finish(const RequestOutput& output) {
  finish_reason_ = output.finish_reason;
  delta_.text += stops_.push(detokenizer_.flush(), generated_ > fields_.sampling.min_tokens);
  delta_.text += stops_.finish();
  if (stops_.matched()) {
    finish_reason_ = FinishReason::kStop;
    return;
  }
  const auto& eos = model_.eos_token_ids;
  const bool is_eos = std::find(eos.begin(), eos.end(), output.stop_token_id) != eos.end();
  if (!is_eos || fields_.ignore_eos) stop_token_id_ = output.stop_token_id;
}

}  // namespace bise
