// The tasks that come with the program: lm-evaluation-harness 0.4.13's definitions.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "eval/task.h"

namespace bise {

// Names of all single tasks and groups, sorted.
std::vector<std::string> builtin_task_names();

// The single tasks that `names` (tasks or groups) stand for, in order, each once; those of `own` go before
// built-in ones of the same name. Texts too long for code are read from `data_dir`. Throws Error listing
// unknown names.
std::vector<TaskConfig> find_tasks(const std::vector<std::string>& names,
                                   const std::filesystem::path& data_dir,
                                   const std::vector<TaskConfig>& own = {});

}  // namespace bise
