#include "report/result.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace bise {
namespace {

constexpr int kSchemaVersion = 1;

template <class T>
void put(Json& object, const char* key, const std::optional<T>& value) {
  if (value) object[key] = *value;
}

std::optional<double> get(const Json& object, const char* key, const std::string& where) {
  if (!object.contains(key)) return std::nullopt;
  return require_number(object, key, where);
}

Json model_json(const ModelResult& model) {
  Json json = {{"name", model.name}, {"scheme", model.scheme}};
  json["environment"] = {{"device", model.environment.device},
                         {"commit", model.environment.commit},
                         {"date", model.environment.date},
                         {"command", model.environment.command}};
  json["disk_bytes"] = model.disk_bytes;
  put(json, "memory_bytes", model.memory_bytes);
  put(json, "prefill_tok_s", model.prefill_tok_s);
  put(json, "decode_tok_s", model.decode_tok_s);
  put(json, "decode_gb_s", model.decode_gb_s);
  put(json, "bandwidth_gb_s", model.bandwidth_gb_s);
  put(json, "perplexity", model.perplexity);
  put(json, "kl_divergence", model.kl_divergence);
  put(json, "top1_agreement", model.top1_agreement);
  if (!model.answer.empty()) json["answer"] = model.answer;
  return json;
}

ModelResult model_from_json(const Json& json, const std::string& where) {
  ModelResult model;
  model.name = require_string(json, "name", where);
  model.scheme = require_string(json, "scheme", where);
  const Json& environment = require(json, "environment", where);
  model.environment = {
      find_string(environment, "device", "", where), find_string(environment, "commit", "", where),
      find_string(environment, "date", "", where), find_string(environment, "command", "", where)};
  model.disk_bytes = require_int(json, "disk_bytes", where);
  if (json.contains("memory_bytes")) model.memory_bytes = require_int(json, "memory_bytes", where);
  model.prefill_tok_s = get(json, "prefill_tok_s", where);
  model.decode_tok_s = get(json, "decode_tok_s", where);
  model.decode_gb_s = get(json, "decode_gb_s", where);
  model.bandwidth_gb_s = get(json, "bandwidth_gb_s", where);
  model.perplexity = get(json, "perplexity", where);
  model.kl_divergence = get(json, "kl_divergence", where);
  model.top1_agreement = get(json, "top1_agreement", where);
  model.answer = find_string(json, "answer", "", where);
  return model;
}

}  // namespace

Json to_json(const Comparison& comparison) {
  Json json = {{"schema_version", kSchemaVersion},
               {"prompt", comparison.prompt},
               {"text", comparison.text},
               {"prompt_tokens", comparison.prompt_tokens},
               {"output_tokens", comparison.output_tokens},
               {"models", Json::array()}};
  for (const ModelResult& model : comparison.models) json["models"].push_back(model_json(model));
  return json;
}

Comparison comparison_from_json(const Json& json, const std::string& where) {
  if (const auto version = require_int(json, "schema_version", where); version != kSchemaVersion)
    throw Error("unknown schema version")
        .at(where)
        .expected(std::to_string(kSchemaVersion))
        .got(std::to_string(version));
  Comparison comparison;
  comparison.prompt = find_string(json, "prompt", "", where);
  comparison.text = find_string(json, "text", "", where);
  comparison.prompt_tokens = find_int(json, "prompt_tokens", 0, where);
  comparison.output_tokens = find_int(json, "output_tokens", 0, where);
  const Json& models = require(json, "models", where);
  if (!models.is_array()) throw Error("wrong type").at(where + ": key \"models\"").expected("a list");
  for (std::size_t i = 0; i < models.size(); ++i)
    comparison.models.push_back(model_from_json(models[i], where + ": models[" + std::to_string(i) + "]"));
  return comparison;
}

}  // namespace bise
