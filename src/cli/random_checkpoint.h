// Checkpoints of random weights, for measurements of shapes that nobody has to download.
#pragma once

#include <filesystem>
#include <string>

#include "cli/random_weights.h"

namespace bise {

// The text of a config.json: `name` is a shape known by name ("ministral-8b", "mixtral-8x7b") or a file.
// Throws Error that lists the names for one that is neither.
std::string model_shape(const std::string& name);

// Writes config.json and weights in `scheme` ("BF16" or what quantize takes) into the new folder `folder`.
// Embedding, output matrix and routers stay bf16. All layers have the same values: those of one are made and
// written often. There is no tokenizer.
void write_random_checkpoint(const std::string& config_json, const std::string& scheme,
                             const std::filesystem::path& folder,
                             RandomValues values = RandomValues::kNormal);

}  // namespace bise
