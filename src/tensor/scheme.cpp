#include "tensor/scheme.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <vector>

#include "base/error.h"

namespace bise {
namespace {

struct Preset {
  std::string_view name;
  Scheme scheme;
};

const std::array<Preset, 7> kPresets{
    {{"W4A16", {WeightType::kInt, 4, Strategy::kGroup, 128, true, InputType::kNone}},
     {"W4A16_ASYM", {WeightType::kInt, 4, Strategy::kGroup, 128, false, InputType::kNone}},
     {"W8A16", {WeightType::kInt, 8, Strategy::kGroup, 128, true, InputType::kNone}},
     {"W8A8", {WeightType::kInt, 8, Strategy::kChannel, 0, true, InputType::kInt8Token}},
     {"INT8", {WeightType::kInt, 8, Strategy::kChannel, 0, true, InputType::kInt8Token}},
     {"FP8_DYNAMIC", {WeightType::kFloat, 8, Strategy::kChannel, 0, true, InputType::kFp8Token}},
     {"NF4", {WeightType::kNf4, 4, Strategy::kGroup, 64, true, InputType::kNone}}}};

std::string_view strategy_name(Strategy strategy) {
  switch (strategy) {
    case Strategy::kTensor: return "tensor";
    case Strategy::kChannel: return "channel";
    case Strategy::kGroup: return "group";
    case Strategy::kBlock: return "block";
  }
  return "?";
}

std::string_view input_name(InputType input) {
  switch (input) {
    case InputType::kNone: return "none";
    case InputType::kInt8Token: return "int8 token";
    case InputType::kFp8Token: return "fp8 token";
    case InputType::kFp8Tensor: return "fp8 tensor static";
  }
  return "?";
}

}  // namespace

std::string scheme_text(const Scheme& scheme) {
  if (!scheme.quantized()) return scheme.num_bits == 32 ? "F32" : "BF16";
  for (const Preset& preset : kPresets) {
    Scheme same_group = scheme;
    same_group.group_size = preset.scheme.group_size;
    if (same_group != preset.scheme) continue;
    return same_group == scheme ? std::string(preset.name)
                                : fmt::format("{} g{}", preset.name, scheme.group_size);
  }
  const char* type = scheme.type == WeightType::kInt   ? "int"
                     : scheme.type == WeightType::kNf4 ? "nf"
                                                       : "float";
  std::string text = fmt::format("{}{} {}", type, scheme.num_bits, strategy_name(scheme.strategy));
  if (scheme.strategy == Strategy::kGroup) text += fmt::format(" {}", scheme.group_size);
  if (!scheme.symmetric) text += " asymmetric";
  if (scheme.input != InputType::kNone) text += fmt::format(", input {}", input_name(scheme.input));
  return text;
}

Scheme parse_scheme(std::string_view name) {
  std::string upper(name);
  std::transform(upper.begin(), upper.end(), upper.begin(),
                 [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  std::vector<std::string_view> known;
  for (const Preset& preset : kPresets) {
    if (preset.name == upper) return preset.scheme;
    known.push_back(preset.name);
  }
  throw Error("unknown scheme")
      .expected(fmt::format("one of {}", fmt::join(known, ", ")))
      .got(fmt::format("\"{}\"", name));
}

}  // namespace bise
