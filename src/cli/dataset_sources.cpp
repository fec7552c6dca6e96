#include "cli/dataset_sources.h"

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "eval/task_registry.h"

namespace bise {
namespace {

// By folder; tasks that share one add their splits.
void add_source(std::map<std::string, DatasetSource>& sources, const TaskConfig& task) {
  if (task.hub_path.empty()) return;
  DatasetSource& source = sources[task.dataset];
  source.folder = task.dataset;
  source.repo = task.hub_path;
  source.config = task.hub_name;
  for (const std::string& split :
       {task.training_split, task.validation_split, task.test_split, task.fewshot_split})
    if (!split.empty() && std::ranges::find(source.splits, split) == source.splits.end())
      source.splits.push_back(split);
}

std::map<std::string, DatasetSource> sources_of(const TaskRegistry& registry,
                                                const std::vector<std::string>& names) {
  std::map<std::string, DatasetSource> sources;
  for (const TaskConfig& task : registry.select(names).tasks) add_source(sources, task);
  return sources;
}

}  // namespace

std::vector<DatasetSource> find_dataset_sources(const std::string& name) {
  const TaskRegistry registry;
  const std::vector<std::string> names = registry.names();
  const auto all = sources_of(registry, names);
  std::vector<DatasetSource> found;
  for (const auto& [folder, source] : all)
    if (folder == name || folder.starts_with(name + "/")) found.push_back(source);
  if (!found.empty() || std::ranges::find(names, name) == names.end()) return found;
  // All splits of the folders that the tasks read, not only theirs: the next task wants the others.
  for (const auto& [folder, _] : sources_of(registry, {name})) found.push_back(all.at(folder));
  return found;
}

}  // namespace bise
