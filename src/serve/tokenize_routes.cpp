#include "serve/tokenize_routes.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "serve/api_error.h"
#include "serve/chat_request.h"
#include "serve/json_text.h"
#include "serve/logprobs_json.h"

namespace bise {
namespace {

std::vector<std::int32_t> read_tokens(RequestReader& reader, const ServedModel& model) {
  GenerationFields fields;
  if (reader.any("messages")) {
    const Conversation conversation = read_conversation(reader, model);
    fields.add_special_tokens = reader.boolean("add_special_tokens").value_or(false);
    reader.problems().throw_if_any();
    ServedModel unlimited = model;
    unlimited.longest_token_bytes = 0;  // counting tokens is what finds a prompt too long
    return encode_conversation(conversation, fields, unlimited);
  }
  const auto prompt = reader.string("prompt");
  if (!prompt && !reader.any("prompt")) reader.problems().add(reader.location("prompt"), "Field required");
  fields.add_special_tokens = reader.boolean("add_special_tokens").value_or(true);
  reader.problems().throw_if_any();
  return model.tokenizer->encode(*prompt, {.add_special_tokens = fields.add_special_tokens});
}

Json model_card(const std::string& name, const ServedModel& model) {
  const Json permission = {{"id", fmt::format("modelperm-{:016x}", std::hash<std::string>()(name))},
                           {"object", "model_permission"},
                           {"created", model.created},
                           {"allow_create_engine", false},
                           {"allow_sampling", true},
                           {"allow_logprobs", true},
                           {"allow_search_indices", false},
                           {"allow_view", true},
                           {"allow_fine_tuning", false},
                           {"organization", "*"},
                           {"group", nullptr},
                           {"is_blocking", false}};
  return {{"id", name},
          {"object", "model"},
          {"created", model.created},
          {"owned_by", "vllm"},
          {"root", model.root},
          {"parent", nullptr},
          {"max_model_len", model.max_model_len},
          {"permission", Json::array({permission})}};
}

}  // namespace

std::string tokenize_answer(const Json& body, const ServedModel& model) {
  Problems problems;
  RequestReader reader(body, "body", problems);
  check_model(reader, model);
  const bool strings = reader.boolean("return_token_strs").value_or(false);
  const std::vector<std::int32_t> tokens = read_tokens(reader, model);
  std::string out = R"({"count":)";
  append_number(out, static_cast<std::int64_t>(tokens.size()));
  out += R"(,"max_model_len":)";
  append_number(out, model.max_model_len);
  out += R"(,"tokens":)";
  append_array(out, tokens);
  out += R"(,"token_strs":)";
  if (!strings) return out += "null}";
  out += '[';
  const LogprobsFormat format(*model.tokenizer, false);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (i > 0) out += ',';
    append_json_string(out, format.token_text(tokens[i]));
  }
  return out += "]}";
}

std::string detokenize_answer(const Json& body, const ServedModel& model) {
  Problems problems;
  RequestReader reader(body, "body", problems);
  check_model(reader, model);
  const auto tokens = reader.integers("tokens");
  if (!tokens && !reader.any("tokens")) problems.add(reader.location("tokens"), "Field required");
  problems.throw_if_any();
  std::vector<std::int32_t> ids;
  for (const std::int64_t id : *tokens) {
    if (id < 0 || id >= model.vocab_size)
      throw field_error(
          fmt::format("Token id {} is out of vocabulary. Vocabulary size: {}", id, model.vocab_size),
          "tokens", fmt::format("{}", id));
    ids.push_back(static_cast<std::int32_t>(id));
  }
  std::string out = R"({"prompt":)";
  append_json_string(out, model.tokenizer->decode(ids, false));
  return out += '}';
}

std::string models_answer(const ServedModel& model) {
  Json cards = Json::array();
  for (const std::string& name : model.names) cards.push_back(model_card(name, model));
  return json_text(Json{{"object", "list"}, {"data", std::move(cards)}});
}

}  // namespace bise
