#include "eval/task_registry.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <fnmatch.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "base/error.h"
#include "base/yaml.h"

namespace bise {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxDepth = 10;             // files that include one another, groups inside groups
constexpr std::size_t kMaxTasks = 10000;  // of one file

using ReadFile = std::function<Json(const std::string& name, const std::string& where)>;

// Filters of `over` replace the steps of those that have their names.
void replace_filters(const Json& over, Json& yaml, const std::string& where) {
  for (const auto& [name, steps] : over.items()) {
    bool found = false;
    for (Json& filter : yaml["filter_list"]) {
      if (filter.value("name", "") != name) continue;
      filter["filter"] = steps;
      found = true;
    }
    if (!found) throw Error("there is no filter \"{}\" to replace", name).at(where);
  }
}

// The keys of `yaml` over those of the file that it includes; null removes a key.
Json with_includes(Json yaml, const ReadFile& read, const std::string& where, int depth = 0) {
  if (depth > kMaxDepth) throw Error("files include one another without end").at(where);
  if (!yaml.is_object()) throw Error("a task file is a mapping of keys").at(where);
  if (!yaml.contains("include")) return yaml;
  const std::string name = require_string(yaml, "include", where);
  Json merged = with_includes(read(name, where), read, name, depth + 1);
  for (const auto& [key, value] : yaml.items()) {
    if (key == "include" || key == "filters_over") continue;
    if (value.is_null()) {
      merged.erase(key);
    } else {
      merged[key] = value;
    }
  }
  if (yaml.contains("filters_over")) replace_filters(yaml["filters_over"], merged, where);
  return merged;
}

std::string scalar_text(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string with_spaces(std::string text) {
  std::ranges::replace(text, '_', ' ');
  return text;
}

std::string substituted(std::string text, const Json& variables) {
  for (const auto& [name, value] : variables.items())
    for (const bool words : {false, true}) {
      const std::string mark = "${" + name + (words ? "_words}" : "}");
      if (text.find(mark) == std::string::npos) continue;
      const std::string with = words ? with_spaces(scalar_text(value)) : scalar_text(value);
      for (std::size_t at = 0; (at = text.find(mark, at)) != std::string::npos; at += with.size())
        text.replace(at, mark.size(), with);
    }
  return text;
}

// "${name}" alone becomes the variable itself, inside a text its text.
void substitute(Json& value, const Json& variables) {
  if (value.is_structured()) {
    for (Json& entry : value) substitute(entry, variables);
    return;
  }
  if (!value.is_string()) return;
  const std::string& text = value.get_ref<const std::string&>();
  if (text.find("${") == std::string::npos) return;
  for (const auto& [name, variable] : variables.items())
    if (text == "${" + name + "}") {
      value = variable;
      return;
    }
  value = substituted(text, variables);
}

// One task for each entry of `expand`, and of the list in a variable of the task's name.
std::vector<Json> expanded(Json yaml, const std::string& where) {
  if (!yaml.contains("expand")) return {std::move(yaml)};
  const Json expand = yaml["expand"];
  yaml.erase("expand");
  if (!expand.is_array()) throw Error("not a list of mappings").at(where + ": key \"expand\"");
  const std::string name = require_string(yaml, "task", where);
  std::vector<Json> tasks;
  for (const Json& entry : expand) {
    if (!entry.is_object()) throw Error("not a mapping of variables").at(where + ": key \"expand\"");
    std::vector<Json> sets = {entry};
    for (const auto& [key, values] : entry.items()) {
      if (!values.is_array() || name.find("${" + key + "}") == std::string::npos) continue;
      sets.assign(values.size(), entry);
      for (std::size_t i = 0; i < values.size(); ++i) sets[i][key] = values[i];
    }
    for (Json& variables : sets) {
      for (Json& variable : variables)  // one may be made of another
        if (variable.is_string()) variable = substituted(variable.get<std::string>(), variables);
      Json task = yaml;
      substitute(task, variables);
      tasks.push_back(std::move(task));
      if (tasks.size() > kMaxTasks) throw Error("too many tasks in one file").at(where);
    }
  }
  return tasks;
}

// Data files named relative to the task file.
void place_data_files(const fs::path& folder, Json& yaml) {
  if (yaml.value("dataset_path", Json()) != "json" || !yaml.contains("dataset_kwargs")) return;
  Json& kwargs = yaml["dataset_kwargs"];
  if (!kwargs.is_object() || !kwargs.contains("data_files")) return;
  for (Json& file : kwargs["data_files"])
    if (file.is_string())
      if (const fs::path path = file.get<std::string>(); path.is_relative() && fs::exists(folder / path))
        file = (folder / path).string();
}

std::vector<std::string> names_in(const Json& list, const std::string& where) {
  std::vector<std::string> names;
  if (list.is_string()) return {list.get<std::string>()};
  for (const Json& entry : list) {
    if (!entry.is_string()) throw Error("not a list of names").at(where);
    names.push_back(entry.get<std::string>());
  }
  return names;
}

TaskGroup parse_group(const Json& yaml, const std::string& where) {
  TaskGroup group;
  group.name = require_string(yaml, "group", where);
  group.alias = find_string(yaml, "group_alias", group.name, where);
  if (yaml.contains("metadata") && yaml["metadata"].is_object() && yaml["metadata"].contains("version"))
    group.version = scalar_text(yaml["metadata"]["version"]);
  if (!yaml.contains("aggregate_metric_list") || yaml["aggregate_metric_list"].is_null()) return group;
  for (const Json& entry : yaml["aggregate_metric_list"]) {
    const std::string place = where + ": key \"aggregate_metric_list\"";
    GroupMetric metric{
        require_string(entry, "metric", place), find_bool(entry, "weight_by_size", true, place), {}};
    if (const std::string how = find_string(entry, "aggregation", "mean", place); how != "mean")
      throw Error("a group takes means").at(place).expected("mean").got(how);
    if (entry.contains("filter_list")) metric.filters = names_in(entry["filter_list"], place);
    group.metrics.push_back(std::move(metric));
  }
  return group;
}

bool is_pattern(const std::string& name) {
  return name.find_first_of("*?[") != std::string::npos;
}

// Walks from names to tasks and groups.
class Selector {
 public:
  Selector(const std::map<std::string, Json>& tasks, const std::map<std::string, Json>& groups,
           const std::map<std::string, std::vector<std::string>>& tags,
           const std::map<std::string, std::string>& places)
      : tasks_(tasks), groups_(groups), tags_(tags), places_(places) {}

  // The direct members that `name` adds to the group around it. `over`: keys put over the tasks'.
  std::vector<std::string> add(const std::string& name, const Json& over, int depth) {
    if (depth > kMaxDepth) throw Error("groups contain one another without end").at(name);
    if (const auto task = tasks_.find(name); task != tasks_.end()) {
      add_task(name, task->second, over);
      return {name};
    }
    if (const auto group = groups_.find(name); group != groups_.end()) {
      add_group(name, group->second, over, depth);
      return {name};
    }
    std::vector<std::string> members, found;
    if (const auto tag = tags_.find(name); tag != tags_.end()) {
      found = tag->second;
    } else if (is_pattern(name)) {
      for (const auto* table : {&tasks_, &groups_})
        for (const auto& [known, yaml] : *table)
          if (::fnmatch(name.c_str(), known.c_str(), 0) == 0) found.push_back(known);
    }
    if (found.empty()) unknown_.push_back(name);
    for (const std::string& each : found)
      for (std::string& member : add(each, over, depth + 1)) members.push_back(std::move(member));
    return members;
  }

  TaskSelection result() {
    if (!unknown_.empty())
      throw Error("Tasks not found: {}", fmt::join(unknown_, ", "))
          .expected("a name that `bise eval --list-tasks` prints");
    if (selection_.tasks.empty()) throw Error("the groups have no tasks");
    return std::move(selection_);
  }

 private:
  void add_task(const std::string& name, Json yaml, const Json& over) {
    if (!seen_.insert(name).second) return;
    for (const auto& [key, value] : over.items()) yaml[key] = value;
    selection_.tasks.push_back(parse_task(yaml, places_.at(name)));
  }

  void add_group(const std::string& name, const Json& yaml, const Json& over, int depth) {
    if (!seen_.insert(name).second) return;
    TaskGroup group = parse_group(yaml, name);
    const Json& members = require(yaml, "task", name);
    for (const Json& member : members.is_string() ? Json::array({members}) : members) {
      Json own = over;
      std::string member_name;
      if (member.is_object()) {
        for (const auto& [key, value] : member.items())
          if (key != "task" && !own.contains(key)) own[key] = value;
        member_name = require_string(member, "task", name);
      } else if (member.is_string()) {
        member_name = member.get<std::string>();
      } else {
        throw Error("a member is neither a name nor a mapping").at("group " + name);
      }
      for (std::string& each : add(member_name, own, depth + 1)) group.members.push_back(std::move(each));
    }
    selection_.groups.push_back(std::move(group));
  }

  const std::map<std::string, Json>&tasks_, &groups_;
  const std::map<std::string, std::vector<std::string>>& tags_;
  const std::map<std::string, std::string>& places_;
  std::set<std::string> seen_;
  std::vector<std::string> unknown_;
  TaskSelection selection_;
};

}  // namespace

TaskRegistry::TaskRegistry() {
  const ReadFile read = [](const std::string& name, const std::string& where) {
    const auto file = builtin_task_files().find(name);
    if (file == builtin_task_files().end()) throw Error("no such file \"{}\"", name).at(where);
    return parse_yaml(file->second, name);
  };
  for (const auto& [name, text] : builtin_task_files())
    add(with_includes(parse_yaml(text, name), read, name), name);
}

void TaskRegistry::add_folder(const fs::path& folder) {
  if (!fs::is_directory(folder)) throw Error("no such folder").at(folder.string());
  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().extension() == ".yaml") paths.push_back(entry.path());
  std::ranges::sort(paths);
  for (const fs::path& path : paths) {
    const ReadFile read = [&](const std::string& name, const std::string&) {
      return read_yaml_file(path.parent_path() / name);
    };
    Json yaml = with_includes(read_yaml_file(path), read, path.string());
    place_data_files(path.parent_path(), yaml);
    add(yaml, path.string());
  }
}

void TaskRegistry::add(const Json& yaml, const std::string& where) {
  if (yaml.contains("groups")) {
    for (const Json& group : yaml["groups"]) add_group(group, where);
  } else if (yaml.contains("group") && yaml.contains("task") && !yaml.contains("dataset_path")) {
    add_group(yaml, where);
  } else if (yaml.contains("task") && yaml["task"].is_string()) {
    for (Json& task : expanded(yaml, where)) add_task(std::move(task), where);
  }
}

void TaskRegistry::add_task(Json yaml, const std::string& where) {
  const std::string name = require_string(yaml, "task", where);
  for (auto& [tag, members] : tags_) std::erase(members, name);
  if (yaml.contains("tag"))
    for (const std::string& tag : names_in(yaml["tag"], where + ": key \"tag\"")) {
      std::vector<std::string>& members = tags_[tag];
      members.insert(std::ranges::upper_bound(members, name), name);
    }
  groups_.erase(name);
  places_[name] = where + ": " + name;
  tasks_[name] = std::move(yaml);
}

// A member may be a whole group.
std::string TaskRegistry::add_group(const Json& yaml, const std::string& where) {
  if (!yaml.is_object()) throw Error("a group is a mapping of keys").at(where);
  const std::string name = require_string(yaml, "group", where);
  Json stored = yaml;
  if (Json& members = stored["task"]; members.is_array())
    for (Json& member : members)
      if (member.is_object() && member.contains("group")) member = add_group(member, where + ": " + name);
  tasks_.erase(name);
  groups_[name] = std::move(stored);
  return name;
}

std::vector<std::string> TaskRegistry::names() const {
  std::set<std::string> names;
  for (const auto& [name, yaml] : tasks_) names.insert(name);
  for (const auto& [name, yaml] : groups_) names.insert(name);
  for (const auto& [name, members] : tags_)
    if (!members.empty()) names.insert(name);
  return {names.begin(), names.end()};
}

TaskSelection TaskRegistry::select(const std::vector<std::string>& names) const {
  Selector selector(tasks_, groups_, tags_, places_);
  for (const std::string& name : names) selector.add(name, Json::object(), 0);
  return selector.result();
}

}  // namespace bise
