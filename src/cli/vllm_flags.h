// Flags of `vllm serve` (0.33) that `bise serve` takes without effect: what they steer does not exist here,
// or works without being told. And vLLM's short names.
#pragma once

#include <optional>
#include <string_view>

namespace bise {

// How many arguments follow a flag: none, one, or all up to the next flag.
enum class FlagArity { kSwitch, kValue, kList };

// Nothing when `flag` ("--enforce-eager", "--no-enforce-eager") is not one of them.
std::optional<FlagArity> flag_without_effect(std::string_view flag);

// "--tensor-parallel-size" for "-tp"; "" when there is no such short name.
std::string_view long_flag(std::string_view short_flag);

}  // namespace bise
