// Data sets on disk: DIR/<name>/<split>.jsonl, one JSON object a line with the field names and types of the
// Hugging Face hub's data set; and texts beside them. Pure functions.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "eval/task.h"

namespace bise {

// The rows of a file, in order. Throws Error naming the line that is damaged.
std::vector<Json> load_rows(const std::filesystem::path& path);

// The rows of a split of the task's set. Throws Error naming the command that brings it when it is absent.
std::vector<Json> load_split(const std::filesystem::path& data_dir, const TaskConfig& task,
                             const std::string& split);

// A text or example file that a task names. Throws Error saying what it is for when it is absent.
void require_text_file(const std::filesystem::path& data_dir, const std::string& file,
                       const std::string& task);
std::string load_text(const std::filesystem::path& data_dir, const std::string& file,
                      const std::string& task);

}  // namespace bise
