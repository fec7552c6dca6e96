// IFEval (Zhou et al. 2023): whether an answer follows its prompt's verifiable instructions
// (spec/evaluation.md section 3.2). Pure functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace bise {

// One entry for each of the row's instruction_id_list. `loose`: the answer also counts without its first
// line, its last, both, and with asterisks removed. Throws Error naming `where` for unknown instructions and
// arguments that are missing or of the wrong type.
std::vector<bool> followed_instructions(const Json& row, const std::string& response, bool loose,
                                        const std::string& where);

// English sentences, counted by their final marks outside of common abbreviations: stands in for nltk's
// trained model and may differ from it.
std::int64_t count_sentences(std::string_view text);

}  // namespace bise
