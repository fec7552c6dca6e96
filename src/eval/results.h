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
  std::string model;                       // "bise", or "local-completions" for a server
  std::string model_name;                  // folder, or the server's name for it
  std::shared_ptr<const Json> model_args;  // an object
  std::string version;                     // of the program
  std::string batch_size = "auto", device;
  std::int64_t max_length = 0;
  double start_time = 0;  // Unix seconds
  double seconds = 0;
  std::string chat_template;  // its source, or ""
  // Tokens that were scored, and those of them that had to be computed; 0 where it is not known.
  std::int64_t scored_tokens = 0, computed_tokens = 0;
  std::vector<std::int64_t> seeds = {0, 1234, 1234, 1234};  // random, numpy, torch, few-shot
};

struct Evaluation {
  std::vector<TaskResult> tasks;
  std::vector<TaskGroup> groups;
  EvaluationOptions options;
  RunDescription run;
};

Json results_json(const Evaluation& evaluation);
// One line a filter and document.
std::string samples_jsonl(const TaskResult& task);
// SHA-256 over the hashes of all documents, first prompts and targets.
std::string task_hash(const TaskResult& task);
// What the harness prints: a line on the run, a Markdown table of all tasks and groups, one of the groups.
std::string results_table(const Evaluation& evaluation);

// DIR/<model>/results_<time>.json, and the samples beside it when `log_samples`. A path that ends in .json
// names the result file itself, up to the time. Returns the path of the result file.
std::filesystem::path write_results(const std::filesystem::path& output, const Evaluation& evaluation,
                                    bool log_samples);
// The folder that write_results writes to.
std::filesystem::path results_folder(const std::filesystem::path& output, const std::string& model_name);

// str(value) of Python: what is printed for arguments.
std::string python_text(const Json& value);

}  // namespace bise
