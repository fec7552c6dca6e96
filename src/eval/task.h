// A task: which data, how a row becomes a prompt, what is measured. Read from YAML with
// lm-evaluation-harness's keys, both the built-in ones (src/eval/tasks) and a user's own. Plain values.
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

// How the values of all samples become one.
enum class Aggregation {
  kMean,
  kMedian,
  kPerplexity,          // exp of minus the mean
  kWeightedPerplexity,  // samples give (log-likelihood, weight): exp(-sum / sum of weights)
  kBitsPerByte,         // the same as bits: -sum / sum of weights / ln 2
  kPooledMean,          // samples give lists: the mean over all their entries
};

struct MetricConfig {
  std::string name;  // acc, acc_norm, acc_bytes, exact_match, ...
  Aggregation aggregation = Aggregation::kMean;
  bool higher_is_better = true;
  // exact_match: removed from both sides before they are compared.
  std::vector<std::string> regexes_to_ignore = {};
  bool ignore_case = false, ignore_punctuation = false, ignore_numbers = false;
};

// One step of a filter chain: regex, multi_choice_regex, take_first, remove_whitespace, lowercase, ...
struct FilterStep {
  std::string function = {}, regex_pattern = {}, fallback = "[invalid]";
  std::int64_t group_select = 0;
  bool ignore_case = false, ignore_punctuation = false;
  std::vector<std::string> regexes_to_ignore = {};
};
struct FilterConfig {
  std::string name;
  std::vector<FilterStep> steps;
};

// The templates that make a document of a row.
struct DocumentTemplates {
  std::string text, target;
  std::string choice;                // a template or field name; or
  std::vector<std::string> choices;  // the same for every row
};

struct FewshotConfig {
  std::string sampler = "default";
  std::vector<Json> samples;    // embedded examples
  std::string samples_file;     // or these, JSON lines in the data folder
  std::string bbh_prompt_file;  // or those of a BIG-Bench-Hard prompt file, which has the description too
  DocumentTemplates templates;  // where examples have others than documents
};

struct TaskConfig {
  std::string task, alias;
  std::vector<std::string> tags;
  std::string dataset;                            // folder under the data folder
  std::string hub_path, hub_name;                 // the set on the Hugging Face hub, and its configuration
  std::map<std::string, std::string> data_files;  // by split, instead of the folder
  std::string training_split, validation_split, test_split, fewshot_split;
  std::map<std::string, std::string> keep_rows;  // only rows whose fields have these values
  std::string process_docs;                      // a built-in row transformation, or ""
  std::string process_results;                   // a built-in way to score a sample, or ""
  OutputType output_type = OutputType::kGenerateUntil;
  DocumentTemplates templates;
  std::map<std::string, std::string> text_files;  // variables of the templates, from files of the data folder
  std::string description, target_delimiter = " ", fewshot_delimiter = "\n\n", gen_prefix;
  bool multiple_inputs = false;  // the choices are contexts, the target is what all are continued with
  bool unsafe_code = false;      // the answers are programs, which are run
  std::optional<std::int64_t> num_fewshot;
  double limit = 0;  // documents, where the user gives no limit; 0 = all
  FewshotConfig fewshot;
  std::shared_ptr<const Json> generation_kwargs;  // an object
  std::vector<MetricConfig> metrics;
  std::vector<FilterConfig> filters;    // at least one; "none" without steps where the file has none
  std::shared_ptr<const Json> version;  // as the file has it; null = none
};

// `where` names the file in errors. Throws Error for an unknown key, a wrong type or a missing part.
TaskConfig parse_task(const Json& yaml, const std::string& where);

// The split that is evaluated, and the one examples come from.
const std::string& evaluation_split(const TaskConfig& task);
const std::string& fewshot_pool_split(const TaskConfig& task);

std::string_view output_type_name(OutputType type);

}  // namespace bise
