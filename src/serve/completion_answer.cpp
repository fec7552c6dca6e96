#include "serve/completion_answer.h"

#include <iterator>

#include "serve/json_text.h"

namespace bise {

CompletionAnswer::CompletionAnswer(const CompletionRequest& request, std::int64_t created,
                                   const ServedModel& model)
    : Answer("cmpl-" + request.fields.request_id, "text_completion", "text_completion", created,
             request.fields, model),
      request_(request),
      shown_(request.prompts.size() * static_cast<std::size_t>(request.fields.n)) {}

const Prompt& CompletionAnswer::prompt_of(std::size_t index) const {
  return request_.prompts[index / static_cast<std::size_t>(fields_.n)];
}

void CompletionAnswer::append_logprobs(std::size_t index, ChoiceStream& choice, std::string& out) {
  if (!request_.logprobs) {
    out += "null";
    return;
  }
  ChoiceDelta& delta = choice.delta();
  std::vector<PositionLogprobs> positions;
  if (fields_.echo && !shown_[index].started) {
    positions.push_back(unscored(prompt_of(index).token_ids.front()));
    if (fields_.show_prompt_logprobs) {
      positions.insert(positions.end(), delta.prompt_logprobs.begin(), delta.prompt_logprobs.end());
    } else {
      std::move(delta.prompt_logprobs.begin(), delta.prompt_logprobs.end(), std::back_inserter(positions));
    }
  }
  if (!request_.prompt_only)
    std::move(delta.logprobs.begin(), delta.logprobs.end(), std::back_inserter(positions));
  logprobs_.append_completion(out, positions, shown_[index].offset);
}

void CompletionAnswer::append_choice(std::size_t index, ChoiceStream& choice, std::string& out) {
  ChoiceDelta& delta = choice.delta();
  out += R"(,"text":")";
  if (fields_.echo && !shown_[index].started) append_json_escaped(out, prompt_of(index).text);
  if (!request_.prompt_only) append_json_escaped(out, delta.text);
  out += R"(","logprobs":)";
  append_logprobs(index, choice, out);
  out += ',';
  if (choice.finish_reason()) {
    append_finish(out, finish_reason_text(*choice.finish_reason()), choice);
  } else {
    out += R"("finish_reason":null,"stop_reason":null)";
  }
}

void CompletionAnswer::append_delta(std::size_t index, ChoiceStream& choice, std::string& out) {
  ChoiceDelta& delta = choice.delta();
  const bool ends = choice.finish_reason().has_value();
  const bool echoes = fields_.echo && !shown_[index].started && delta.tokens > 0;
  const bool has_ids = fields_.return_token_ids && !delta.token_ids.empty();
  const bool shows = !delta.text.empty() || !delta.logprobs.empty() || has_ids || echoes;
  if (!ends && (!shows || request_.prompt_only)) return;
  begin_frame(out, index);
  append_choice(index, choice, out);
  if (fields_.return_token_ids) {
    if (!shown_[index].started) {
      out += R"(,"prompt_token_ids":)";
      append_array(out, prompt_of(index).token_ids);
    }
    out += R"(,"token_ids":)";
    append_array(out, request_.prompt_only ? std::span<const std::int32_t>() : delta.token_ids);
  }
  shown_[index].started = true;
  end_frame(out, static_cast<std::int64_t>(prompt_of(index).token_ids.size()), choice.generated(), ends);
  delta = {};
}

std::string CompletionAnswer::whole(std::vector<ChoiceStream>& choices, const Usage& usage) {
  std::string out = begin_whole() + R"(,"choices":[)";
  for (std::size_t index = 0; index < choices.size(); ++index) {
    ChoiceDelta& delta = choices[index].delta();
    if (index > 0) out += ',';
    out += R"({"index":)";
    append_number(out, static_cast<std::int64_t>(index));
    append_choice(index, choices[index], out);
    out += R"(,"token_ids":)";
    if (fields_.return_token_ids) {
      append_array(out, request_.prompt_only ? std::span<const std::int32_t>() : delta.token_ids);
    } else {
      out += "null";
    }
    out += R"(,"prompt_logprobs":)";
    if (fields_.show_prompt_logprobs) {
      logprobs_.append_prompt(out, delta.prompt_logprobs);
    } else {
      out += "null";
    }
    out += R"(,"prompt_token_ids":)";
    if (fields_.return_token_ids) {
      append_array(out, prompt_of(index).token_ids);
    } else {
      out += "null";
    }
    if (fields_.return_prompt_text) {
      out += R"(,"prompt_text":)";
      append_json_string(out, prompt_of(index).text);
    }
    out += '}';
    delta = {};
  }
  out += R"(],"service_tier":null,"system_fingerprint":)";
  if (model_.system_fingerprint.empty()) {
    out += "null";
  } else {
    append_json_string(out, model_.system_fingerprint);
  }
  out += ',';
  append_usage(out, usage, true);
  return out += R"(,"kv_transfer_params":null})";
}

}  // namespace bise
