#include <nlohmann/json.hpp>

#include "base/error.h"
#include "formats/quantization_config.h"

namespace bise {
namespace {

// The release whose files these equal key for key.
constexpr const char* kCompressedTensorsVersion = "0.19.0";

const char* strategy_name(Strategy strategy) {
  switch (strategy) {
    case Strategy::kTensor: return "tensor";
    case Strategy::kChannel: return "channel";
    case Strategy::kGroup: return "group";
    case Strategy::kBlock: return "block";
  }
  return "";
}

// A QuantizationArgs object with every key, in the reference's (alphabetical) order.
Json args_json(const char* type, int num_bits, const char* strategy) {
  return {{"actorder", nullptr},
          {"block_structure", nullptr},
          {"dynamic", false},
          {"group_size", nullptr},
          {"num_bits", num_bits},
          {"observer", nullptr},
          {"observer_kwargs", Json::object()},
          {"scale_dtype", nullptr},
          {"strategy", strategy},
          {"symmetric", true},
          {"type", type},
          {"zp_dtype", nullptr}};
}

Json weights_json(const GroupToWrite& group) {
  const Scheme& scheme = group.scheme;
  const char* type = scheme.type == WeightType::kFloat ? "float" : "int";
  Json args = args_json(type, scheme.num_bits, strategy_name(scheme.strategy));
  if (group.static_actorder) args["actorder"] = "static";
  if (scheme.strategy == Strategy::kGroup) args["group_size"] = scheme.group_size;
  args["observer"] = group.observer;
  args["symmetric"] = scheme.symmetric;
  if (!scheme.symmetric) args["zp_dtype"] = "torch.int8";
  return args;
}

Json input_json(InputType input) {
  if (input == InputType::kNone) return nullptr;
  const bool is_static = input == InputType::kFp8Tensor;
  Json args = args_json(input == InputType::kInt8Token ? "int" : "float", 8, is_static ? "tensor" : "token");
  args["dynamic"] = !is_static;
  if (is_static) args["observer"] = "static_minmax";
  return args;
}

const char* format_name(const Scheme& scheme) {
  if (storage_for(scheme) == Storage::kPacked) return "pack-quantized";
  if (scheme.type == WeightType::kInt) return "int-quantized";
  return scheme.input == InputType::kNone ? "naive-quantized" : "float-quantized";
}

}  // namespace

Json compressed_tensors_config(const std::vector<GroupToWrite>& groups,
                               const std::vector<std::string>& ignore) {
  Json config_groups = Json::object();
  std::string format;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const Scheme& scheme = groups[i].scheme;
    if (!scheme.quantized() || scheme.type == WeightType::kNf4 || scheme.strategy == Strategy::kBlock)
      throw Error("compressed-tensors files here cannot hold the scheme").got(scheme_text(scheme));
    const char* own_format = format_name(scheme);
    format = i == 0 || format == own_format ? own_format : "mixed-precision";
    config_groups[fmt::format("group_{}", i)] = {{"format", own_format},
                                                 {"input_activations", input_json(scheme.input)},
                                                 {"output_activations", nullptr},
                                                 {"targets", groups[i].targets},
                                                 {"weights", weights_json(groups[i])}};
  }
  return {{"config_groups", config_groups},      {"format", format},
          {"global_compression_ratio", nullptr}, {"ignore", ignore},
          {"kv_cache_scheme", nullptr},          {"quant_method", "compressed-tensors"},
          {"quantization_status", "compressed"}, {"sparsity_config", Json::object()},
          {"transform_config", Json::object()},  {"version", kCompressedTensorsVersion}};
}

Json bitsandbytes_config(const std::vector<std::string>& skip_modules) {
  return {{"_load_in_4bit", true},
          {"_load_in_8bit", false},
          {"bnb_4bit_compute_dtype", "bfloat16"},
          {"bnb_4bit_quant_storage", "uint8"},
          {"bnb_4bit_quant_type", "nf4"},
          {"bnb_4bit_use_double_quant", false},
          {"llm_int8_enable_fp32_cpu_offload", false},
          {"llm_int8_has_fp16_weight", false},
          {"llm_int8_skip_modules", skip_modules.empty() ? Json() : Json(skip_modules)},
          {"llm_int8_threshold", 6.0},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"quant_method", "bitsandbytes"}};
}

}  // namespace bise
