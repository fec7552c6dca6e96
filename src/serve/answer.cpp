#include "serve/answer.h"

#include "serve/json_text.h"

namespace bise {
namespace {

std::string head(const std::string& id, const char* object, std::int64_t created, const std::string& model) {
  std::string text = R"({"id":)";
  append_json_string(text, id);
  text += R"(,"object":)";
  append_json_string(text, object);
  text += R"(,"created":)";
  append_number(text, created);
  text += R"(,"model":)";
  append_json_string(text, model);
  return text;
}

}  // namespace

Answer::Answer(std::string id, const char* object, const char* chunk_object, std::int64_t created,
               const GenerationFields& fields, const ServedModel& model)
    : fields_(fields),
      model_(model),
      logprobs_(*model.tokenizer, fields.return_tokens_as_token_ids),
      id_(std::move(id)),
      whole_head_(head(id_, object, created, model.names.front())),
      frame_head_("data: " + head(id_, chunk_object, created, model.names.front()) + R"(,"choices":[)") {}

void Answer::begin_frame(std::string& out, std::size_t index) const {
  out += frame_head_;
  out += R"({"index":)";
  append_number(out, static_cast<std::int64_t>(index));
}

void Answer::end_frame(std::string& out, std::int64_t prompt_tokens, std::int64_t generated,
                       bool last) const {
  out += "}]";
  if (fields_.continuous_usage) {
    out += ',';
    append_usage(out, {prompt_tokens, generated, 0}, false);
  }
  if (last && !fields_.include_usage && !model_.system_fingerprint.empty()) {
    out += R"(,"system_fingerprint":)";
    append_json_string(out, model_.system_fingerprint);
  }
  out += "}\n\n";
}

void Answer::append_end(const Usage& usage, std::string& out) const {
  if (fields_.include_usage) {
    out += frame_head_;
    out += "],";
    append_usage(out, usage, true);
    if (!model_.system_fingerprint.empty()) {
      out += R"(,"system_fingerprint":)";
      append_json_string(out, model_.system_fingerprint);
    }
    out += "}\n\n";
  }
  out += kStreamEnd;
}

std::string Answer::begin_whole() const {
  return whole_head_;
}

void Answer::append_usage(std::string& out, const Usage& usage, bool whole) const {
  out += R"("usage":{"prompt_tokens":)";
  append_number(out, usage.prompt_tokens);
  out += R"(,"total_tokens":)";
  append_number(out, usage.prompt_tokens + usage.completion_tokens);
  out += R"(,"completion_tokens":)";
  append_number(out, usage.completion_tokens);
  if (whole) {
    out += R"(,"prompt_tokens_details":)";
    if (model_.enable_prompt_tokens_details) {
      out += R"({"cached_tokens":)";
      append_number(out, usage.cached_tokens);
      out += '}';
    } else {
      out += "null";
    }
  }
  out += '}';
}

void Answer::append_finish(std::string& out, std::string_view reason, const ChoiceStream& choice) {
  out += R"("finish_reason":")";
  out += reason;
  out += R"(","stop_reason":)";
  if (choice.stop_string()) {
    append_json_string(out, *choice.stop_string());
  } else if (choice.stop_token_id() >= 0) {
    append_number(out, std::int64_t{choice.stop_token_id()});
  } else {
    out += "null";
  }
}

}  // namespace bise
