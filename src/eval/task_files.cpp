#include "eval/task_files.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/yaml.h"

namespace bise {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxIncludes = 10;  // files that include one another

// The keys of `path` over those of the file it includes.
Json with_includes(const fs::path& path, int depth) {
  if (depth > kMaxIncludes) throw Error("files include one another without end").at(path.string());
  Json yaml = read_yaml_file(path);
  if (!yaml.is_object()) throw Error("a task file is a mapping of keys").at(path.string());
  if (!yaml.contains("include")) return yaml;
  Json merged = with_includes(path.parent_path() / require_string(yaml, "include", path.string()), depth + 1);
  yaml.erase("include");
  for (const auto& [key, value] : yaml.items()) merged[key] = value;
  return merged;
}

// Data files named relative to the task file.
void place_data_files(const fs::path& folder, TaskConfig& task) {
  for (auto& [split, file] : task.data_files)
    if (fs::path(file).is_relative() && fs::exists(folder / file)) file = (folder / file).string();
}

}  // namespace

std::vector<TaskConfig> load_task_files(const fs::path& folder) {
  if (!fs::is_directory(folder)) throw Error("no such folder").at(folder.string());
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().extension() == ".yaml") paths.push_back(entry.path());
  std::ranges::sort(paths);
  std::vector<TaskConfig> tasks;
  for (const fs::path& path : paths) {
    const Json yaml = with_includes(path, 0);
    if (!yaml.contains("task") || !yaml["task"].is_string()) continue;
    tasks.push_back(parse_task(yaml, path.string()));
    place_data_files(path.parent_path(), tasks.back());
  }
  return tasks;
}

}  // namespace bise
