// A task: which data, how a row becomes a prompt, what is measured. Read from YAML with
// lm-evaluation-harness's keys, both the built-in ones (builtin_tasks.h) and a user's own. Plain values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"

namespace bise {

enum class OutputType { kMultipleChoice, kLoglikelihood, kLoglikelihoodRolling, kGenerateUntil };

struct MetricConfig {
  std::string name;  // acc, acc_norm, acc_bytes, exact_match, ...
  std::string aggregation = "mean";
  bool higher_is_better = true;
  // exact_match: removed from both sides before they are compared.
  std::vector<std::string> regexes_to_ignore = {};
  bool ignore_case = false, ignore_punctuation = false, ignore_numbers = false;
};

// One step of a filter chain: regex, multi_choice_regex, take_first, remove_whitespace, lowercase, ...
struct FilterStep {
  std::string function = {}, regex_pattern = {}, fallback = "[invalid]";
  std::int64_t group_select = 0;
};
struct FilterConfig {
  std::string name;
  std::vector<FilterStep> steps;
};

struct TaskConfig {
  std::string task, alias;
  std::string dataset;                            // folder under the data folder
  std::map<std::string, std::string> data_files;  // by split, instead of that folder
  std::string training_split, validation_split, test_split, fewshot_split;
  std::string process_docs;  // a built-in row transformation, or ""
  OutputType output_type = OutputType::kGenerateUntil;
  std::string doc_to_text, doc_to_target;
  std::string doc_to_choice;         // a template or field name; or
  std::vector<std::string> choices;  // the same for every row
  std::string description, target_delimiter = " ", fewshot_delimiter = "\n\n", gen_prefix;
  bool multiple_inputs = false;  // the choices are contexts, the target is what all are continued with
  std::optional<std::int64_t> num_fewshot;
  std::string sampler = "default";
  std::vector<Json> fewshot_samples;              // embedded examples
  std::shared_ptr<const Json> generation_kwargs;  // an object
  std::vector<MetricConfig> metrics;
  std::vector<FilterConfig> filters;  // at least one; "none" without steps where the file has none
  std::string version;
  std::shared_ptr<const Json> source;  // as read, for the result file
};

// `where` names the file in errors. Throws Error for an unknown key, a wrong type or a missing part.
TaskConfig parse_task(const Json& yaml, const std::string& where);

// The split that is evaluated, and the one examples come from.
const std::string& evaluation_split(const TaskConfig& task);
const std::string& fewshot_pool_split(const TaskConfig& task);

}  // namespace bise
