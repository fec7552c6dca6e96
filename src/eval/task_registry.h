// All tasks and groups by name: the built-in ones (src/eval/tasks, lm-evaluation-harness 0.4.13's
// definitions) and those of a user's folder. One thread.
//
// Beside the harness's keys a task file may have `expand`: a list of mappings of variables, for each of which
// the file stands once; "${name}" in any string is replaced by the variable, and "${name_words}" by it with
// spaces for "_". A variable of the task's name that is a list stands for one task an entry. A file with
// `groups` lists groups.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/json.h"
#include "eval/task.h"

namespace bise {

// A metric that a group takes over its tasks.
struct GroupMetric {
  std::string metric;
  bool weight_by_size = true;
  std::vector<std::string> filters;  // empty: all that the tasks have
};

struct TaskGroup {
  std::string name, alias;
  std::string version = "N/A";
  std::vector<std::string> members;  // direct: tasks and groups
  std::vector<GroupMetric> metrics;
};

struct TaskSelection {
  std::vector<TaskConfig> tasks;  // each once
  std::vector<TaskGroup> groups;  // those in a group come before it
};

class TaskRegistry {
 public:
  TaskRegistry();  // the built-in ones

  // The *.yaml files of a folder and the folders in it; they replace what has the same name. A file may take
  // over another's keys with `include: FILE`; one without a task or group name is there to be included. Data
  // files (dataset_path: json) are looked for beside the task file. Throws Error naming the file.
  void add_folder(const std::filesystem::path& folder);

  // Of single tasks, groups and tags, sorted.
  std::vector<std::string> names() const;

  // What `names` (tasks, groups, tags, or patterns with * and ?) stand for, in order. Throws Error listing
  // unknown names.
  TaskSelection select(const std::vector<std::string>& names) const;

 private:
  void add(const Json& yaml, const std::string& where);
  void add_task(Json yaml, const std::string& where);
  std::string add_group(const Json& yaml, const std::string& where);

  std::map<std::string, Json> tasks_, groups_;
  std::map<std::string, std::string> places_;  // where each task stands, for errors
  std::map<std::string, std::vector<std::string>> tags_;
};

// The texts of src/eval/tasks by file name (CMakeLists.txt compiles them in).
const std::map<std::string, std::string>& builtin_task_files();

}  // namespace bise
