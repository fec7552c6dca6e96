// What to quantize, to what, and how. A later issue reads this from llm-compressor's recipe files; today the
// command line fills it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "formats/model_config.h"
#include "quantize/gptq.h"
#include "tensor/scheme.h"

namespace bise {

enum class Algorithm { kRtn, kGptq };

struct Recipe {
  Scheme scheme;
  Algorithm algorithm = Algorithm::kRtn;
  GptqOptions gptq;
  Rounding rounding = Rounding::kFloat32;
  // Module names, or patterns "re:..." that must match from the name's start, as compressed-tensors has them.
  std::vector<std::string> ignore = {"lm_head", "re:.*block_sparse_moe.gate$"};
};

// Whether the recipe leaves the linear module alone.
bool is_ignored(const Recipe& recipe, std::string_view module);

// Every width that a quantized linear layer of this architecture reads (hidden, heads * head_dim,
// intermediate).
std::vector<std::int64_t> linear_widths(const ModelConfig& config);

// `wanted` when it divides every width, else the largest of 128, 64, 32, 16 that does and is smaller. Throws
// Error when none does.
std::int64_t fitting_group_size(std::int64_t wanted, const std::vector<std::int64_t>& widths);

// The recipe in llm-compressor's YAML, for the checkpoint's recipe.yaml.
std::string recipe_yaml(const Recipe& recipe);

}  // namespace bise
