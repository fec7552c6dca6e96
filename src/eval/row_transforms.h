// What lm-evaluation-harness's process_docs and template functions do to the rows of a data set, by name.
// Pure functions but for the random numbers that some draw.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "eval/python_random.h"

namespace bise {

// Python's str.capitalize(), one character to one ("ß" stays "ß"). Valid UTF-8 in.
std::string python_capitalize(std::string_view text);
// hellaswag's preprocess(): marks and double spaces removed (spec/evaluation.md section 3.1).
std::string hellaswag_clean(std::string_view text);
// wikitext's detokenizer: blanks around punctuation removed.
std::string wikitext_detokenized(const std::string& text);
// The strings of a list as Python's repr() writes it: "['a', \"b\"]". Throws Error naming `where`.
std::vector<std::string> python_string_list(std::string_view text, const std::string& where);

// Applies the transformation `name` ("" = none): the harness's own changes to `row`, whose hash the sample
// file has, and to `extra` what templates need beside it. `random` is Python's global generator. Throws Error
// naming `where` for missing fields or an unknown name.
void transform_row(const std::string& name, Json& row, Json& extra, PythonRandom& random,
                   const std::string& where);

}  // namespace bise
