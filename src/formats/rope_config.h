// The rotary embedding's parameters in the spellings of transformers 4, transformers 5 and Mistral.
#pragma once

#include <cstdint>
#include <string>

#include "base/json.h"
#include "formats/model_config.h"

namespace bise {

// From a config.json object: "rope_parameters" (transformers 5) or "rope_theta" with "rope_scaling" (4).
// `default_theta` applies when neither states one. Throws Error for a type that bise does not compute.
RopeConfig read_rope_config(const Json& config, double default_theta, std::int64_t max_position_embeddings,
                            const std::string& where);

// From a params.json object: "rope_theta" and "yarn".
RopeConfig read_native_rope_config(const Json& params, const std::string& where);

}  // namespace bise
