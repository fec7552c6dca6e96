#include "formats/quantization_config.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "formats/module_pattern.h"
#include "formats/quantization_args.h"

namespace bise {
namespace fs = std::filesystem;

struct QuantizationConfig::Pattern {
  ModulePattern pattern;
};

struct QuantizationConfig::Group {
  std::vector<ModulePattern> targets;
  LinearFormat format;
};

namespace {

bool present(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && !found->is_null() && !(found->is_structured() && found->empty());
}

std::vector<std::string> string_list(const Json& object, const char* key, const std::string& where) {
  std::vector<std::string> result;
  if (!present(object, key)) return result;
  const Json& list = object[key];
  if (!list.is_array()) throw Error("\"{}\" is not a list", key).at(where);
  for (const Json& item : list) {
    if (!item.is_string()) throw Error("\"{}\" holds something else than names", key).at(where);
    result.push_back(item.get<std::string>());
  }
  return result;
}

// A skip entry of bitsandbytes covers modules that have it as a whole dotted component or as a prefix.
ModulePattern component_pattern(const std::string& entry) {
  std::string quoted;
  for (const char c : entry) {
    if (std::string_view("\\^$.|?*+()[]{}").find(c) != std::string_view::npos) quoted += '\\';
    quoted += c;
  }
  return ModulePattern(fmt::format("re:(.*\\.)?{}(\\..*)?$", quoted));
}

// Mistral's own FP8 object in params.json, as vLLM translates it.
Json native_fp8_object(const Json& object, const std::string& where) {
  const std::string weight = find_string(object, "qformat_weight", "", where);
  if (weight != "fp8_e4m3")
    throw Error("qformat_weight is not supported")
        .at(where)
        .expected("\"fp8_e4m3\"")
        .got("\"" + weight + "\"");
  const std::string inputs = find_string(object, "qscheme_act", "TENSOR", where);
  if (inputs != "TENSOR" && inputs != "NO_SCALES")
    throw Error("qscheme_act is not supported").at(where).expected("TENSOR or NO_SCALES").got(inputs);
  return {{"quant_method", "fp8"},
          {"activation_scheme", inputs == "TENSOR" ? "static" : "dynamic"},
          {"ignored_layers", Json::array({"lm_head"})}};
}

}  // namespace

QuantizationConfig QuantizationConfig::read(const fs::path& folder) {
  const bool hugging_face = fs::exists(folder / "config.json");
  const fs::path path = folder / (hugging_face ? "config.json" : "params.json");
  const Json config = read_json_file(path, std::size_t{1} << 26);
  const char* key = hugging_face ? "quantization_config" : "quantization";
  if (!config.is_object()) throw Error("config is not a JSON object").at(path.string());
  if (present(config, key)) return parse(config[key], fmt::format("{}: {}", path.string(), key));
  // Files of before 2024 hold it under this name.
  if (present(config, "compression_config"))
    return parse(config["compression_config"], path.string() + ": compression_config");
  return {};
}

QuantizationConfig QuantizationConfig::parse(const Json& object, const std::string& where) {
  if (!object.is_object()) throw Error("the quantization config is not an object").at(where);
  QuantizationConfig config;
  if (present(object, "qformat_weight")) return parse(native_fp8_object(object, where), where);
  config.quant_method_ = find_string(object, "quant_method", "compressed-tensors", where);
  try {
    if (config.quant_method_ == "compressed-tensors") {
      config.parse_compressed_tensors(object, where);
    } else if (config.quant_method_ == "fp8") {
      config.parse_fp8(object, where);
    } else if (config.quant_method_ == "bitsandbytes") {
      config.parse_bitsandbytes(object, where);
    } else {
      throw Error("quant_method is not supported")
          .expected("compressed-tensors, fp8 or bitsandbytes")
          .got(fmt::format("\"{}\"", config.quant_method_));
    }
  } catch (const Error& error) {
    if (error.where().starts_with(where)) throw;
    rethrow_inside(error, where);
  }
  return config;
}

void QuantizationConfig::parse_compressed_tensors(const Json& object, const std::string& where) {
  for (const char* key : {"sparsity_config", "transform_config"})
    if (present(object, key)) {
      // An empty list of targets or groups changes nothing.
      const Json& value = object[key];
      const bool idle = value.is_object() && !present(value, "targets") && !present(value, "config_groups") &&
                        find_string(value, "format", "dense", where) == "dense";
      if (!idle) throw Error("key \"{}\" is not supported", key).at(where);
    }
  if (present(object, "kv_cache_scheme")) {
    read_kv_cache_args(object["kv_cache_scheme"], where + ": kv_cache_scheme");
    kv_cache_scheme_ = KvCacheScheme::kFp8Tensor;
  }
  for (const std::string& name : string_list(object, "ignore", where))
    ignore_.push_back(std::make_shared<Pattern>(Pattern{ModulePattern(name)}));
  const std::string format = find_string(object, "format", "", where);
  if (!present(object, "config_groups")) return;
  const Json& groups = object["config_groups"];
  if (!groups.is_object()) throw Error("\"config_groups\" is not an object").at(where);
  for (const auto& [name, value] : groups.items()) {
    const std::string place = fmt::format("{}: {}", where, name);
    Group group;
    group.format = read_group_format(value, format, place);
    for (const std::string& target : string_list(value, "targets", place)) group.targets.emplace_back(target);
    groups_.push_back(std::make_shared<Group>(std::move(group)));
  }
}

// AutoFP8 and transformers' own FP8: every linear module but those that are listed.
void QuantizationConfig::parse_fp8(const Json& object, const std::string& where) {
  if (present(object, "weight_block_size"))
    throw Error("key \"weight_block_size\" is not supported: inputs quantized by group").at(where);
  const std::string activations = find_string(object, "activation_scheme", "dynamic", where);
  if (activations != "static" && activations != "dynamic")
    throw Error("activation_scheme is unknown").at(where).expected("static or dynamic").got(activations);
  if (present(object, "kv_cache_scheme")) {
    if (object["kv_cache_scheme"] != "static")
      throw Error("kv_cache_scheme is unknown").at(where).expected("\"static\"");
    kv_cache_scheme_ = KvCacheScheme::kFp8Tensor;
  }
  for (const char* key : {"ignored_layers", "modules_to_not_convert"})
    for (const std::string& name : string_list(object, key, where))
      ignore_.push_back(std::make_shared<Pattern>(
          Pattern{name.starts_with("re:") ? ModulePattern(name) : component_pattern(name)}));
  Group group;
  group.targets.emplace_back("Linear");
  group.format.storage = Storage::kPlain;
  group.format.scheme = {WeightType::kFloat,
                         8,
                         Strategy::kTensor,
                         0,
                         true,
                         activations == "static" ? InputType::kFp8Tensor : InputType::kFp8Token};
  groups_.push_back(std::make_shared<Group>(std::move(group)));
}

void QuantizationConfig::parse_bitsandbytes(const Json& object, const std::string& where) {
  if (!find_bool(object, "load_in_4bit", find_bool(object, "_load_in_4bit", false, where), where))
    throw Error("only 4-bit bitsandbytes checkpoints are supported").at(where).expected("load_in_4bit: true");
  if (const std::string type = find_string(object, "bnb_4bit_quant_type", "fp4", where); type != "nf4")
    throw Error("bnb_4bit_quant_type is not supported").at(where).expected("\"nf4\"").got("\"" + type + "\"");
  if (const std::string storage = find_string(object, "bnb_4bit_quant_storage", "uint8", where);
      storage != "uint8")
    throw Error("bnb_4bit_quant_storage is not supported").at(where).expected("\"uint8\"").got(storage);
  std::vector<std::string> skipped = string_list(object, "llm_int8_skip_modules", where);
  if (skipped.empty()) skipped = {"lm_head"};
  for (const std::string& name : skipped)
    ignore_.push_back(std::make_shared<Pattern>(Pattern{component_pattern(name)}));
  Group group;
  group.targets.emplace_back("Linear");
  group.format.storage = Storage::kNf4;
  group.format.scheme = {WeightType::kNf4, 4, Strategy::kGroup, 64, true, InputType::kNone};
  groups_.push_back(std::make_shared<Group>(std::move(group)));
}

LinearFormat QuantizationConfig::format_of(std::string_view name) const {
  for (const auto& ignored : ignore_)
    if (ignored->pattern.matches(name)) return {};
  for (const auto& group : groups_)
    for (const ModulePattern& target : group->targets)
      if (target.matches(name)) return group->format;
  return {};
}

}  // namespace bise
