// compressed-tensors' QuantizationArgs objects and what they mean as a Scheme. spec/quantization.md 1.2, 1.3.
#pragma once

#include <string>

#include "base/json.h"
#include "formats/quantization_config.h"

namespace bise {

// The format of a member of config_groups. `top_format` is the config's own "format", used when the group
// states none. Throws Error naming the key for an unknown key and for what bise does not run.
LinearFormat read_group_format(const Json& group, const std::string& top_format, const std::string& where);

// Checks a kv_cache_scheme: static float8, one scale for the tensor.
void read_kv_cache_args(const Json& args, const std::string& where);

}  // namespace bise
