// Result files of an evaluation as lm-evaluation-harness and `bise eval` write them: results_<time>.json, and
// samples_<task>_<time>.jsonl beside it where --log-samples was given. Plain values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace bise {

struct SampleScore {
  std::string doc_hash;  // or ""
  double value = 0;
};

struct MetricScore {
  std::string metric, filter;  // "acc_norm", "none"
  double value = 0;
  std::optional<double> standard_error;
  bool higher_is_better = true;
  std::map<std::int64_t, SampleScore> samples;  // by doc_id; empty where there is no samples file

  std::string key() const { return metric + "," + filter; }
};

struct TaskScore {
  std::string name, alias;
  std::optional<std::int64_t> shots, documents;
  std::vector<std::string> subtasks;  // of a group
  std::vector<MetricScore> metrics;

  const MetricScore* find(const std::string& key) const;
};

struct EvalRun {
  std::string name;  // of the model, as far as the file says
  std::vector<TaskScore> tasks;

  const TaskScore* find(const std::string& task) const;
};

// Whether `path` is a result file, or a folder with such files in it or in its folders.
bool is_eval_result(const std::filesystem::path& path);

// One run: a file, or all files of a folder, of which the latest counts where several have a task. Throws
// Error naming the file and key for anything malformed.
EvalRun read_eval_run(const std::filesystem::path& path);

// One result file's content, without samples; `where` names it in errors.
EvalRun parse_eval_run(const Json& json, const std::string& where);
// Adds the values of a samples file to the task's metrics.
void add_samples(std::string_view jsonl, TaskScore& task, const std::string& where);

}  // namespace bise
