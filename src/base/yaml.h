// YAML read into JSON values, with the scalar types of YAML 1.1 as Python's yaml.safe_load gives them (dates
// stay strings). yaml-cpp does not leave yaml.cpp.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "base/json.h"

namespace bise {

// One document. `where` names it in errors. Throws Error on invalid YAML, on keys that are not scalars or
// stand twice, on nesting deeper than 64, and when aliases expand it to more than 100,000 values. No document
// is null.
Json parse_yaml(std::string_view text, const std::string& where);

// A whole file of at most 4 MiB.
Json read_yaml_file(const std::filesystem::path& path);

}  // namespace bise
