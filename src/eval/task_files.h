// A user's own tasks: YAML files with lm-evaluation-harness's keys. Pure functions.
#pragma once

#include <filesystem>
#include <vector>

#include "eval/task.h"

namespace bise {

// The tasks in the *.yaml files of `folder` and the folders in it, by path. A file may take over another's
// keys with `include: FILE`; one without a task name is there to be included. Data files (dataset_path: json)
// are looked for beside the task file. Throws Error naming the file.
std::vector<TaskConfig> load_task_files(const std::filesystem::path& folder);

}  // namespace bise
