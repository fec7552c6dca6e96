#include "formats/rope_config.h"

#include <nlohmann/json.hpp>

#include "base/error.h"

namespace bise {
namespace {

const Json* find_object(const Json& config, const char* key, const std::string& where) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return nullptr;
  if (!found->is_object()) throw Error("\"{}\" is not an object", key).at(where).got(found->type_name());
  return &*found;
}

RopeType parse_type(const std::string& name, const std::string& where) {
  if (name == "default") return RopeType::kDefault;
  if (name == "linear") return RopeType::kLinear;
  if (name == "llama3") return RopeType::kLlama3;
  if (name == "yarn") return RopeType::kYarn;
  throw Error("rope type is not supported")
      .at(where)
      .expected("default, linear, llama3 or yarn")
      .got(fmt::format("\"{}\"", name));
}

void check_range(const RopeConfig& rope, const std::string& where) {
  const auto positive = [&](double value, const char* name) {
    if (!(value > 0 && value < 1e18))
      throw Error("{} is not a positive number", name).at(where).got(fmt::format("{}", value));
  };
  positive(rope.theta, "rope_theta");
  positive(rope.factor, "rope factor");
  if (rope.type == RopeType::kLlama3) {
    positive(rope.low_freq_factor, "low_freq_factor");
    if (!(rope.high_freq_factor > rope.low_freq_factor && rope.high_freq_factor < 1e18))
      throw Error("high_freq_factor does not exceed low_freq_factor").at(where);
  }
  if (rope.type == RopeType::kYarn) {
    positive(rope.beta_fast, "beta_fast");
    positive(rope.beta_slow, "beta_slow");
  }
  if (rope.type == RopeType::kLlama3 || rope.type == RopeType::kYarn)
    positive(rope.original_max_position_embeddings, "original_max_position_embeddings");
}

// The members beside the type and theta.
void read_scaling(const Json& scaling, double max_positions, RopeConfig& rope, const std::string& where) {
  if (rope.type == RopeType::kDefault) return;
  rope.original_max_position_embeddings =
      find_number(scaling, "original_max_position_embeddings", max_positions, where);
  if (rope.type == RopeType::kYarn && !scaling.contains("factor"))
    rope.factor = max_positions / rope.original_max_position_embeddings;
  else
    rope.factor = require_number(scaling, "factor", where);
  if (rope.type == RopeType::kLlama3) {
    rope.original_max_position_embeddings =
        require_number(scaling, "original_max_position_embeddings", where);
    rope.low_freq_factor = require_number(scaling, "low_freq_factor", where);
    rope.high_freq_factor = require_number(scaling, "high_freq_factor", where);
  }
  if (rope.type == RopeType::kYarn) {
    rope.beta_fast = find_number(scaling, "beta_fast", 32, where);
    rope.beta_slow = find_number(scaling, "beta_slow", 1, where);
    rope.attention_factor = find_number(scaling, "attention_factor", 0, where);
    rope.mscale = find_number(scaling, "mscale", 0, where);
    rope.mscale_all_dim = find_number(scaling, "mscale_all_dim", 0, where);
    if (!find_bool(scaling, "truncate", true, where))
      throw Error("rope key \"truncate\": false is not supported").at(where);
    if (find_number(scaling, "llama_4_scaling_beta", 0, where) != 0)
      throw Error("rope key \"llama_4_scaling_beta\" is not supported").at(where);
  }
}

}  // namespace

RopeConfig read_rope_config(const Json& config, double default_theta, std::int64_t max_position_embeddings,
                            const std::string& where) {
  RopeConfig rope;
  rope.theta = find_number(config, "rope_theta", default_theta, where);
  const Json* parameters = find_object(config, "rope_parameters", where);
  if (!parameters) parameters = find_object(config, "rope_scaling", where);
  if (parameters) {
    if (parameters->contains("full_attention") || parameters->contains("sliding_attention"))
      throw Error("rope parameters that differ by layer type are not supported").at(where);
    rope.theta = find_number(*parameters, "rope_theta", rope.theta, where);
    // Old files say "type"; some hold both.
    rope.type = parse_type(
        find_string(*parameters, "rope_type", find_string(*parameters, "type", "default", where), where),
        where);
    read_scaling(*parameters, static_cast<double>(max_position_embeddings), rope, where);
  }
  for (const Json* place : {&config, parameters})
    if (place && find_number(*place, "partial_rotary_factor", 1, where) != 1)
      throw Error("partial_rotary_factor is not supported").at(where);
  check_range(rope, where);
  return rope;
}

RopeConfig read_native_rope_config(const Json& params, const std::string& where) {
  RopeConfig rope;
  rope.theta = find_number(params, "rope_theta", 10000, where);
  if (const Json* yarn = find_object(params, "yarn", where); yarn && !yarn->empty()) {
    for (const auto& [key, value] : yarn->items())
      if (key != "factor" && key != "original_max_position_embeddings" && key != "beta" && key != "alpha" &&
          key != "apply_scale")
        throw Error("key \"yarn.{}\" is not supported", key).at(where);
    rope.type = RopeType::kYarn;
    rope.factor = require_number(*yarn, "factor", where);
    rope.original_max_position_embeddings = require_number(*yarn, "original_max_position_embeddings", where);
    rope.beta_fast = find_number(*yarn, "beta", 32, where);
    rope.beta_slow = find_number(*yarn, "alpha", 1, where);
    if (!find_bool(*yarn, "apply_scale", true, where)) rope.attention_factor = 1;
  }
  check_range(rope, where);
  return rope;
}

}  // namespace bise
