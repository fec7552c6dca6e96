#include "quantize/recipe.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "formats/module_pattern.h"

namespace bise {
namespace {

bool divides_all(std::int64_t size, const std::vector<std::int64_t>& widths) {
  return std::ranges::all_of(widths, [size](std::int64_t width) { return width % size == 0; });
}

std::string quoted_list(const std::vector<std::string>& values) {
  std::string text = "[";
  for (const std::string& value : values) text += (text.size() > 1 ? ", '" : "'") + value + "'";
  return text + "]";
}

}  // namespace

bool is_ignored(const Recipe& recipe, std::string_view module) {
  return std::ranges::any_of(
      recipe.ignore, [&](const std::string& pattern) { return ModulePattern(pattern).matches(module); });
}

std::vector<std::int64_t> linear_widths(const ModelConfig& config) {
  return {config.hidden_size, config.num_attention_heads * config.head_dim, config.intermediate_size};
}

std::int64_t fitting_group_size(std::int64_t wanted, const std::vector<std::int64_t>& widths) {
  if (wanted > 0 && divides_all(wanted, widths)) return wanted;
  for (const std::int64_t size : {128, 64, 32, 16})
    if (size < wanted && divides_all(size, widths)) return size;
  throw Error("no group size fits this model's widths")
      .expected(fmt::format("{} or a smaller power of two that divides them", wanted));
}

std::string recipe_yaml(const Recipe& recipe) {
  const Scheme& scheme = recipe.scheme;
  const bool gptq = recipe.algorithm == Algorithm::kGptq;
  std::string yaml = "quant_stage:\n  quant_modifiers:\n";
  yaml += gptq ? "    GPTQModifier:\n" : "    QuantizationModifier:\n";
  if (gptq)
    yaml += fmt::format("      block_size: {}\n      dampening_frac: {}\n      actorder: {}\n",
                        recipe.gptq.block_size, recipe.gptq.dampening_frac,
                        recipe.gptq.static_activation_order ? "static" : "null");
  yaml += "      ignore: " + quoted_list(recipe.ignore) + "\n      config_groups:\n        group_0:\n";
  yaml += "          targets: ['Linear']\n";
  yaml +=
      fmt::format("          weights: {{num_bits: {}, type: {}, strategy: {}, symmetric: {}, dynamic: false",
                  scheme.num_bits, scheme.type == WeightType::kFloat ? "float" : "int",
                  scheme.strategy == Strategy::kGroup ? "group" : "channel", scheme.symmetric);
  if (scheme.strategy == Strategy::kGroup) yaml += fmt::format(", group_size: {}", scheme.group_size);
  yaml += "}\n";
  if (scheme.input != InputType::kNone)
    yaml += fmt::format(
        "          input_activations: {{num_bits: 8, type: {}, strategy: token, symmetric: true, dynamic: "
        "true}}\n",
        scheme.input == InputType::kInt8Token ? "int" : "float");
  return yaml;
}

}  // namespace bise
