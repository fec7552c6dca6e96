// What lm-evaluation-harness's process_docs functions do to the rows of a data set, by name. Pure functions.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace bise {

// Python's str.capitalize(), one character to one ("ß" stays "ß"). Valid UTF-8 in.
std::string python_capitalize(std::string_view text);
// hellaswag's preprocess(): marks and double spaces removed (spec/evaluation.md section 3.1).
std::string hellaswag_clean(std::string_view text);

// Applies the transformation `name` ("" = none) to a row. Throws Error naming `where` for missing fields or
// an unknown name.
void transform_row(const std::string& name, Json& row, const std::string& where);

}  // namespace bise
