// Data sets on disk: DIR/<name>/<split>.jsonl, one JSON object a line with the field names and types of the
// Hugging Face hub's data set. Pure functions.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"

namespace bise {

// The rows of a file, in order. Throws Error naming the line that is damaged.
std::vector<Json> load_rows(const std::filesystem::path& path);

// The rows of a split. Throws Error naming the command that brings the set when it is absent.
std::vector<Json> load_split(const std::filesystem::path& data_dir, const std::string& dataset,
                             const std::string& split);

}  // namespace bise
