// What an evaluation leaves behind, in lm-evaluation-harness's schema (spec/evaluation.md section 5): the
// table it prints, results_<time>.json and samples_<task>_<time>.jsonl.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "eval/evaluate.h"

namespace bise {

// What was run, beside the tasks.
struct RunDescription {
  std::string model;    // folder or server
  std::string version;  // of the program
  std::int64_t max_length = 0;
  double start_time = 0;  // Unix seconds
  double seconds = 0;
  double limit = 0;
  std::uint64_t fewshot_seed = 1234;
  std::string system_instruction;
  std::shared_ptr<const Json> generation_kwargs;  // given by the user, or null
};

Json results_json(const std::vector<TaskResult>& tasks, const RunDescription& run);
// One line a filter and document.
std::string samples_jsonl(const TaskResult& task);
// The Markdown table with task, version, filter, shots, metric, value and standard error.
std::string results_table(const std::vector<TaskResult>& tasks);

// DIR/<model>/results_<time>.json, and the samples beside it when `log_samples`. A path that ends in .json
// names the result file itself, up to the time. Returns the path of the result file.
std::filesystem::path write_results(const std::filesystem::path& output, const std::vector<TaskResult>& tasks,
                                    const RunDescription& run, bool log_samples);

}  // namespace bise
