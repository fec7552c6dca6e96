#include "eval/task.h"

#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/error.h"

namespace bise {
namespace {

const std::set<std::string> kKeys = {"task",
                                     "task_alias",
                                     "tag",
                                     "group",
                                     "dataset_path",
                                     "dataset_name",
                                     "dataset_kwargs",
                                     "training_split",
                                     "validation_split",
                                     "test_split",
                                     "fewshot_split",
                                     "process_docs",
                                     "output_type",
                                     "doc_to_text",
                                     "doc_to_target",
                                     "doc_to_choice",
                                     "description",
                                     "target_delimiter",
                                     "fewshot_delimiter",
                                     "gen_prefix",
                                     "multiple_inputs",
                                     "num_fewshot",
                                     "fewshot_config",
                                     "generation_kwargs",
                                     "metric_list",
                                     "filter_list",
                                     "repeats",
                                     "should_decontaminate",
                                     "doc_to_decontamination_query",
                                     "unsafe_code",
                                     "metadata"};

constexpr std::array kOutputTypes = {
    std::pair{"multiple_choice", OutputType::kMultipleChoice},
    std::pair{"loglikelihood", OutputType::kLoglikelihood},
    std::pair{"loglikelihood_rolling", OutputType::kLoglikelihoodRolling},
    std::pair{"generate_until", OutputType::kGenerateUntil},
};

OutputType parse_output_type(const std::string& name, const std::string& where) {
  for (const auto& [text, type] : kOutputTypes)
    if (name == text) return type;
  throw Error("unknown output_type")
      .at(where)
      .expected("multiple_choice, loglikelihood, loglikelihood_rolling or generate_until")
      .got(name);
}

// A template may be written as a number or boolean: text in any case.
std::string template_text(const Json& yaml, const char* key, const std::string& where) {
  if (!yaml.contains(key) || yaml[key].is_null()) return "";
  if (yaml[key].is_string()) return yaml[key].get<std::string>();
  if (yaml[key].is_number()) return yaml[key].dump();
  throw Error("wrong type")
      .at(where + ": key \"" + key + "\"")
      .expected("a string")
      .got(yaml[key].type_name());
}

MetricConfig parse_metric(const Json& entry, const std::string& where) {
  MetricConfig metric;
  metric.name = require_string(entry, "metric", where);
  metric.aggregation = find_string(entry, "aggregation", "mean", where);
  metric.higher_is_better = find_bool(entry, "higher_is_better", true, where);
  metric.ignore_case = find_bool(entry, "ignore_case", false, where);
  metric.ignore_punctuation = find_bool(entry, "ignore_punctuation", false, where);
  metric.ignore_numbers = find_bool(entry, "ignore_numbers", false, where);
  if (entry.contains("regexes_to_ignore"))
    for (const Json& pattern : entry["regexes_to_ignore"]) {
      if (!pattern.is_string()) throw Error("a pattern is not a string").at(where + ": regexes_to_ignore");
      metric.regexes_to_ignore.push_back(pattern.get<std::string>());
    }
  return metric;
}

FilterConfig parse_filter(const Json& entry, const std::string& where) {
  FilterConfig filter{require_string(entry, "name", where), {}};
  for (const Json& step : require(entry, "filter", where)) {
    FilterStep parsed;
    parsed.function = require_string(step, "function", where);
    parsed.regex_pattern = find_string(step, "regex_pattern", R"(#### (\-?[0-9\.\,]+))", where);
    parsed.group_select = find_int(step, "group_select", 0, where);
    parsed.fallback = find_string(step, "fallback", "[invalid]", where);
    filter.steps.push_back(std::move(parsed));
  }
  return filter;
}

void parse_dataset(const Json& yaml, const std::string& where, TaskConfig& task) {
  task.dataset = require_string(yaml, "dataset_path", where);
  if (task.dataset == "json") {
    const std::string place = where + ": key \"dataset_kwargs\"";
    const Json& files = require(require(yaml, "dataset_kwargs", where), "data_files", place);
    for (const auto& [split, file] : files.items()) {
      if (!file.is_string()) throw Error("a data file is not named by a string").at(place);
      task.data_files[split] = file.get<std::string>();
    }
    return;
  }
  if (const std::string name = find_string(yaml, "dataset_name", "", where); !name.empty())
    task.dataset += "/" + name;
}

void parse_choices(const Json& yaml, const std::string& where, TaskConfig& task) {
  if (!yaml.contains("doc_to_choice") || !yaml["doc_to_choice"].is_array()) {
    task.doc_to_choice = template_text(yaml, "doc_to_choice", where);
    return;
  }
  for (const Json& choice : yaml["doc_to_choice"]) {
    if (!choice.is_string() && !choice.is_number())
      throw Error("a choice is not a string").at(where + ": key \"doc_to_choice\"");
    task.choices.push_back(choice.is_string() ? choice.get<std::string>() : choice.dump());
  }
}

void parse_fewshot(const Json& yaml, const std::string& where, TaskConfig& task) {
  if (!yaml.contains("fewshot_config") || yaml["fewshot_config"].is_null()) return;
  const Json& config = yaml["fewshot_config"];
  const std::string place = where + ": key \"fewshot_config\"";
  task.sampler = find_string(config, "sampler", "default", place);
  if (task.sampler != "default" && task.sampler != "first_n")
    throw Error("unknown few-shot sampler").at(place).expected("default or first_n").got(task.sampler);
  if (config.contains("samples"))
    for (const Json& sample : config["samples"]) task.fewshot_samples.push_back(sample);
}

}  // namespace

TaskConfig parse_task(const Json& yaml, const std::string& where) {
  if (!yaml.is_object()) throw Error("a task is a mapping of keys").at(where);
  for (const auto& [key, value] : yaml.items())
    if (!kKeys.contains(key)) throw Error("unknown key \"{}\" in a task", key).at(where);
  TaskConfig task;
  task.source = std::make_shared<Json>(yaml);
  task.task = require_string(yaml, "task", where);
  task.alias = find_string(yaml, "task_alias", task.task, where);
  parse_dataset(yaml, where, task);
  task.training_split = find_string(yaml, "training_split", "", where);
  task.validation_split = find_string(yaml, "validation_split", "", where);
  task.test_split = find_string(yaml, "test_split", "", where);
  task.fewshot_split = find_string(yaml, "fewshot_split", "", where);
  if (task.validation_split.empty() && task.test_split.empty())
    throw Error("a task names the split to evaluate").at(where).expected("test_split or validation_split");
  task.process_docs = find_string(yaml, "process_docs", "", where);
  task.output_type = parse_output_type(find_string(yaml, "output_type", "generate_until", where), where);
  task.doc_to_text = template_text(yaml, "doc_to_text", where);
  task.doc_to_target = template_text(yaml, "doc_to_target", where);
  parse_choices(yaml, where, task);
  if (task.output_type == OutputType::kMultipleChoice && task.doc_to_choice.empty() && task.choices.empty())
    throw Error("a multiple_choice task needs doc_to_choice").at(where);
  task.description = template_text(yaml, "description", where);
  task.target_delimiter = find_string(yaml, "target_delimiter", " ", where);
  task.fewshot_delimiter = find_string(yaml, "fewshot_delimiter", "\n\n", where);
  task.gen_prefix = find_string(yaml, "gen_prefix", "", where);
  task.multiple_inputs = find_bool(yaml, "multiple_inputs", false, where);
  if (yaml.contains("num_fewshot") && !yaml["num_fewshot"].is_null())
    task.num_fewshot = require_int(yaml, "num_fewshot", where);
  parse_fewshot(yaml, where, task);
  const bool has_kwargs = yaml.contains("generation_kwargs") && yaml["generation_kwargs"].is_object();
  task.generation_kwargs = std::make_shared<Json>(has_kwargs ? yaml["generation_kwargs"] : Json::object());
  for (const Json& entry : require(yaml, "metric_list", where))
    task.metrics.push_back(parse_metric(entry, where + ": key \"metric_list\""));
  if (yaml.contains("filter_list"))
    for (const Json& entry : yaml["filter_list"])
      task.filters.push_back(parse_filter(entry, where + ": key \"filter_list\""));
  if (task.filters.empty()) task.filters.push_back({"none", {}});
  if (yaml.contains("metadata") && yaml["metadata"].contains("version"))
    task.version = json_text(yaml["metadata"]["version"]);
  return task;
}

const std::string& evaluation_split(const TaskConfig& task) {
  return task.test_split.empty() ? task.validation_split : task.test_split;
}

const std::string& fewshot_pool_split(const TaskConfig& task) {
  if (!task.fewshot_split.empty()) return task.fewshot_split;
  if (!task.training_split.empty()) return task.training_split;
  if (!task.validation_split.empty()) return task.validation_split;
  return task.test_split;
}

}  // namespace bise
