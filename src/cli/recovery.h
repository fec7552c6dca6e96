// `bise compare` with result files of evaluations instead of checkpoints.
#pragma once

#include <string>
#include <vector>

namespace bise {

// Whether all of `paths` are result files or folders of them. Throws Error when only some are.
bool are_eval_results(const std::vector<std::string>& paths);

// Prints the recovery tables (one JSON object with `json`) and writes recovery.json, .md, .html and .svg into
// the folder `output` where one is given. Returns the exit code.
int compare_eval_results(const std::vector<std::string>& paths, const std::string& output, bool json);

}  // namespace bise
