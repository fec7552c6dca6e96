#include "report/eval_results.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

constexpr std::size_t kMostSampleBytes = std::size_t{1} << 32;

bool is_result_name(const fs::path& path) {
  return path.extension() == ".json" && path.filename().string().starts_with("results");
}

// Result files in `folder`, or else in the folders directly below it; by name, which is by time.
std::vector<fs::path> result_files(const fs::path& folder) {
  std::vector<fs::path> files, folders;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.is_regular_file() && is_result_name(entry.path())) files.push_back(entry.path());
    if (entry.is_directory()) folders.push_back(entry.path());
  }
  for (const fs::path& below : files.empty() ? folders : std::vector<fs::path>())
    for (const auto& entry : fs::directory_iterator(below))
      if (entry.is_regular_file() && is_result_name(entry.path())) files.push_back(entry.path());
  std::ranges::sort(files, {}, [](const fs::path& path) { return path.filename(); });
  return files;
}

bool higher_is_better(const Json& json, const std::string& task, const std::string& metric) {
  const auto all = json.find("higher_is_better");
  if (all == json.end() || !all->is_object() || !all->contains(task) || !(*all)[task].is_object())
    return true;
  const auto entry = (*all)[task].find(metric);
  return entry == (*all)[task].end() || !entry->is_boolean() || entry->get<bool>();
}

// "acc_norm,none": 0.5 and "acc_norm_stderr,none": 0.1 or "N/A".
void read_metrics(const Json& json, const Json& entry, TaskScore& task, const std::string& where) {
  for (const auto& [key, value] : entry.items()) {
    const std::size_t comma = key.find(',');
    if (comma == std::string::npos || !value.is_number()) continue;
    MetricScore score;
    score.metric = key.substr(0, comma);
    score.filter = key.substr(comma + 1);
    if (score.metric.ends_with("_stderr")) continue;
    score.value = value.get<double>();
    if (!std::isfinite(score.value)) throw Error("a score is no number").at(where + ": " + key);
    const auto error = entry.find(score.metric + "_stderr," + score.filter);
    if (error != entry.end() && error->is_number()) score.standard_error = error->get<double>();
    score.higher_is_better = higher_is_better(json, task.name, score.metric);
    task.metrics.push_back(std::move(score));
  }
}

std::optional<std::int64_t> count_at(const Json& json, const char* table, const std::string& task,
                                     const char* key) {
  const auto all = json.find(table);
  if (all == json.end() || !all->is_object() || !all->contains(task)) return std::nullopt;
  const Json& entry = (*all)[task];
  const Json& value = key && entry.is_object() && entry.contains(key) ? entry[key] : entry;
  return value.is_number_integer() ? std::optional(value.get<std::int64_t>()) : std::nullopt;
}

std::string model_name(const Json& json) {
  for (const char* key : {"model_name", "model_source"})
    if (json.contains(key) && json[key].is_string() && !json[key].get<std::string>().empty())
      return json[key].get<std::string>();
  return "";
}

// The samples of one task: "results_T.json" has "samples_TASK_T.jsonl", or "samples_T.jsonl" for one task.
fs::path samples_file(const fs::path& results, const std::string& task, bool only_task) {
  const std::string stem = results.stem().string();
  // A name of the user's own ends in the time too: NAME_<time>.json.
  const std::size_t cut = stem.starts_with("results_") ? 7 : stem.rfind('_');
  if (cut == std::string::npos) return {};
  const std::string suffix = stem.substr(cut);
  for (const std::string& name : {"samples_" + task + suffix + ".jsonl", "samples" + suffix + ".jsonl"}) {
    std::error_code absent;
    const fs::path path = results.parent_path() / name;
    if (fs::is_regular_file(path, absent) && (only_task || name.find(task) != std::string::npos)) return path;
  }
  return {};
}

EvalRun read_file_run(const fs::path& path) {
  EvalRun run = parse_eval_run(read_json_file(path), path.string());
  for (TaskScore& task : run.tasks) {
    const fs::path samples = samples_file(path, task.name, run.tasks.size() == 1);
    if (!samples.empty()) add_samples(read_file(samples, kMostSampleBytes), task, samples.string());
  }
  return run;
}

// The number that a sample's metric is, where it is one.
std::optional<double> sample_value(const Json& line, const std::string& metric) {
  const auto value = line.find(metric);
  if (value == line.end()) return std::nullopt;
  if (value->is_boolean()) return value->get<bool>() ? 1 : 0;
  return value->is_number() ? std::optional(value->get<double>()) : std::nullopt;
}

}  // namespace

const MetricScore* TaskScore::find(const std::string& key) const {
  const auto found = std::ranges::find_if(metrics, [&](const MetricScore& m) { return m.key() == key; });
  return found == metrics.end() ? nullptr : &*found;
}

const TaskScore* EvalRun::find(const std::string& task) const {
  const auto found = std::ranges::find(tasks, task, &TaskScore::name);
  return found == tasks.end() ? nullptr : &*found;
}

bool is_eval_result(const fs::path& path) {
  std::error_code absent;
  if (fs::is_regular_file(path, absent)) return path.extension() == ".json";
  // A checkpoint may hold anything, but no folder of results has a model's configuration.
  if (!fs::is_directory(path, absent) || fs::exists(path / "config.json", absent)) return false;
  return !result_files(path).empty();
}

EvalRun parse_eval_run(const Json& json, const std::string& where) {
  EvalRun run;
  run.name = model_name(json);
  const Json& results = require(json, "results", where);
  if (!results.is_object()) throw Error("wrong type").at(where + ": key \"results\"").expected("an object");
  for (const auto& [name, entry] : results.items()) {
    const std::string place = fmt::format("{}: results of {}", where, name);
    if (!entry.is_object()) throw Error("wrong type").at(place).expected("an object").got(entry.type_name());
    TaskScore task;
    task.name = name;
    task.alias = find_string(entry, "alias", name, place);
    task.alias.erase(0, task.alias.find_first_not_of(" -"));  // lm_eval indents the members of groups
    task.shots = count_at(json, "n-shot", name, nullptr);
    task.documents = count_at(json, "n-samples", name, "effective");
    if (const auto groups = json.find("group_subtasks");
        groups != json.end() && groups->is_object() && groups->contains(name) && (*groups)[name].is_array())
      for (const Json& subtask : (*groups)[name])
        if (subtask.is_string()) task.subtasks.push_back(subtask.get<std::string>());
    read_metrics(json, entry, task, place);
    run.tasks.push_back(std::move(task));
  }
  if (run.tasks.empty()) throw Error("the result file has no results").at(where);
  return run;
}

void add_samples(std::string_view jsonl, TaskScore& task, const std::string& where) {
  std::size_t number = 0;
  while (!jsonl.empty()) {
    const std::size_t end = std::min(jsonl.find('\n'), jsonl.size());
    const std::string_view text = jsonl.substr(0, end);
    jsonl.remove_prefix(std::min(end + 1, jsonl.size()));
    ++number;
    if (text.find_first_not_of(" \t\r") == text.npos) continue;
    const std::string place = fmt::format("{}: line {}", where, number);
    const Json line = parse_json(text, place);
    const std::int64_t doc_id = require_int(line, "doc_id", place);
    const std::string filter = find_string(line, "filter", "none", place);
    const std::string hash = find_string(line, "doc_hash", "", place);
    for (MetricScore& metric : task.metrics) {
      if (metric.filter != filter) continue;
      const auto value = sample_value(line, metric.metric);
      if (value && !metric.samples.emplace(doc_id, SampleScore{hash, *value}).second)
        throw Error("a document is scored twice").at(place).got(fmt::format("doc_id {}", doc_id));
    }
  }
}

EvalRun read_eval_run(const fs::path& path) {
  EvalRun run;
  std::error_code absent;
  const std::vector<fs::path> files =
      fs::is_directory(path, absent) ? result_files(path) : std::vector<fs::path>{path};
  if (files.empty())
    throw Error("no result files")
        .at(path.string())
        .expected("results_*.json, as bise eval --output-path writes");
  for (const fs::path& file : files) {
    EvalRun part = read_file_run(file);
    if (!part.name.empty()) run.name = part.name;
    for (TaskScore& task : part.tasks) {
      const auto known = std::ranges::find(run.tasks, task.name, &TaskScore::name);
      if (known != run.tasks.end()) {
        *known = std::move(task);
      } else {
        run.tasks.push_back(std::move(task));
      }
    }
  }
  if (run.name.empty()) {
    const fs::path named = fs::absolute(path).lexically_normal();
    run.name = (named.has_filename() ? named : named.parent_path()).stem().string();
  }
  return run;
}

}  // namespace bise
