#include "eval/task.h"

#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

#include "base/error.h"

namespace bise {
namespace {

const std::set<std::string, std::less<>> kKeys = {
    // lm-evaluation-harness's
    "task", "task_alias", "tag", "group", "dataset_path", "dataset_name", "dataset_kwargs", "training_split",
    "validation_split", "test_split", "fewshot_split", "process_docs", "process_results", "output_type",
    "doc_to_text", "doc_to_target", "doc_to_choice", "description", "target_delimiter", "fewshot_delimiter",
    "gen_prefix", "multiple_inputs", "num_fewshot", "fewshot_config", "generation_kwargs", "metric_list",
    "filter_list", "repeats", "should_decontaminate", "doc_to_decontamination_query", "unsafe_code",
    "metadata",
    // bise's own
    "hub", "keep_rows", "text_files", "limit"};

constexpr std::array kOutputTypes = {
    std::pair{"multiple_choice", OutputType::kMultipleChoice},
    std::pair{"loglikelihood", OutputType::kLoglikelihood},
    std::pair{"loglikelihood_rolling", OutputType::kLoglikelihoodRolling},
    std::pair{"generate_until", OutputType::kGenerateUntil},
};

constexpr std::array kAggregations = {
    std::pair{"mean", Aggregation::kMean},
    std::pair{"median", Aggregation::kMedian},
    std::pair{"perplexity", Aggregation::kPerplexity},
    std::pair{"weighted_perplexity", Aggregation::kWeightedPerplexity},
    std::pair{"bits_per_byte", Aggregation::kBitsPerByte},
    std::pair{"pooled_mean", Aggregation::kPooledMean},
};

// What the harness takes where a task file names none.
struct MetricDefault {
  const char* name;
  const char* aggregation;
  bool higher_is_better;
};
constexpr std::array kMetricDefaults = {
    MetricDefault{"perplexity", "perplexity", false},
    MetricDefault{"word_perplexity", "weighted_perplexity", false},
    MetricDefault{"byte_perplexity", "weighted_perplexity", false},
    MetricDefault{"bits_per_byte", "bits_per_byte", false},
};

template <class Table>
auto named(const Table& table, const std::string& name, const char* what, const std::string& where) {
  std::string known;
  for (const auto& [text, value] : table) {
    if (name == text) return value;
    known += (known.empty() ? "" : ", ") + std::string(text);
  }
  throw Error("unknown {}", what).at(where).expected(known).got(name);
}

std::string at_key(const std::string& where, const char* key) {
  return where + ": key \"" + key + "\"";
}

// A template may be written as a number or boolean: text in any case.
std::string template_text(const Json& yaml, const char* key, const std::string& where) {
  if (!yaml.contains(key) || yaml[key].is_null()) return "";
  if (yaml[key].is_string()) return yaml[key].get<std::string>();
  if (yaml[key].is_number()) return yaml[key].dump();
  throw Error("wrong type").at(at_key(where, key)).expected("a string").got(yaml[key].type_name());
}

std::vector<std::string> strings_at(const Json& yaml, const char* key, const std::string& where) {
  std::vector<std::string> result;
  if (!yaml.contains(key) || yaml[key].is_null()) return result;
  if (yaml[key].is_string()) return {yaml[key].get<std::string>()};
  for (const Json& entry : yaml[key]) {
    if (!entry.is_string()) throw Error("not a list of strings").at(at_key(where, key));
    result.push_back(entry.get<std::string>());
  }
  return result;
}

std::map<std::string, std::string> string_map(const Json& yaml, const char* key, const std::string& where) {
  std::map<std::string, std::string> result;
  if (!yaml.contains(key) || yaml[key].is_null()) return result;
  for (const auto& [name, value] : yaml[key].items()) {
    if (!value.is_string()) throw Error("not a mapping to strings").at(at_key(where, key));
    result[name] = value.get<std::string>();
  }
  return result;
}

MetricConfig parse_metric(const Json& entry, const std::string& where) {
  MetricConfig metric;
  metric.name = require_string(entry, "metric", where);
  MetricDefault standard{"", "mean", true};
  for (const MetricDefault& known : kMetricDefaults)
    if (metric.name == known.name) standard = known;
  metric.aggregation = named(kAggregations, find_string(entry, "aggregation", standard.aggregation, where),
                             "aggregation", where);
  metric.higher_is_better = find_bool(entry, "higher_is_better", standard.higher_is_better, where);
  metric.ignore_case = find_bool(entry, "ignore_case", false, where);
  metric.ignore_punctuation = find_bool(entry, "ignore_punctuation", false, where);
  metric.ignore_numbers = find_bool(entry, "ignore_numbers", false, where);
  metric.regexes_to_ignore = strings_at(entry, "regexes_to_ignore", where);
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
    parsed.ignore_case = find_bool(step, "ignore_case", false, where);
    parsed.ignore_punctuation = find_bool(step, "ignore_punctuation", false, where);
    parsed.regexes_to_ignore = strings_at(step, "regexes_to_ignore", where);
    filter.steps.push_back(std::move(parsed));
  }
  return filter;
}

void parse_dataset(const Json& yaml, const std::string& where, TaskConfig& task) {
  task.dataset = require_string(yaml, "dataset_path", where);
  if (task.dataset == "json") {
    const std::string place = at_key(where, "dataset_kwargs");
    task.data_files = string_map(require(yaml, "dataset_kwargs", where), "data_files", place);
    if (task.data_files.empty()) throw Error("a task on files of its own names them").at(place);
    return;
  }
  const std::string name = find_string(yaml, "dataset_name", "", where);
  task.hub_path = task.dataset;
  task.hub_name = name;
  if (!name.empty()) task.dataset += "/" + name;
  if (!yaml.contains("hub")) return;
  task.hub_path = require_string(yaml["hub"], "path", at_key(where, "hub"));
  task.hub_name = find_string(yaml["hub"], "name", "", at_key(where, "hub"));
}

DocumentTemplates parse_templates(const Json& yaml, const std::string& where) {
  DocumentTemplates templates;
  templates.text = template_text(yaml, "doc_to_text", where);
  templates.target = template_text(yaml, "doc_to_target", where);
  if (!yaml.contains("doc_to_choice") || !yaml["doc_to_choice"].is_array()) {
    templates.choice = template_text(yaml, "doc_to_choice", where);
    return templates;
  }
  for (const Json& choice : yaml["doc_to_choice"]) {
    if (!choice.is_string() && !choice.is_number())
      throw Error("a choice is not a string").at(at_key(where, "doc_to_choice"));
    templates.choices.push_back(choice.is_string() ? choice.get<std::string>() : choice.dump());
  }
  return templates;
}

void parse_fewshot(const Json& yaml, const std::string& where, TaskConfig& task) {
  FewshotConfig& fewshot = task.fewshot;
  fewshot.templates = task.templates;
  if (!yaml.contains("fewshot_config") || yaml["fewshot_config"].is_null()) return;
  const Json& config = yaml["fewshot_config"];
  const std::string place = at_key(where, "fewshot_config");
  fewshot.sampler = find_string(config, "sampler", "default", place);
  if (fewshot.sampler != "default" && fewshot.sampler != "first_n")
    throw Error("unknown few-shot sampler").at(place).expected("default or first_n").got(fewshot.sampler);
  if (config.contains("samples"))
    for (const Json& sample : config["samples"]) {
      if (!sample.is_object()) throw Error("an example is not a mapping").at(place);
      fewshot.samples.push_back(sample);
    }
  fewshot.samples_file = find_string(config, "samples_file", "", place);
  fewshot.bbh_prompt_file = find_string(config, "bbh_prompt_file", "", place);
  const DocumentTemplates own = parse_templates(config, place);
  if (!own.text.empty()) fewshot.templates.text = own.text;
  if (!own.target.empty()) fewshot.templates.target = own.target;
  if (!own.choice.empty() || !own.choices.empty()) {
    fewshot.templates.choice = own.choice;
    fewshot.templates.choices = own.choices;
  }
}

void parse_measures(const Json& yaml, const std::string& where, TaskConfig& task) {
  for (const Json& entry : require(yaml, "metric_list", where))
    task.metrics.push_back(parse_metric(entry, at_key(where, "metric_list")));
  if (yaml.contains("filter_list"))
    for (const Json& entry : yaml["filter_list"])
      task.filters.push_back(parse_filter(entry, at_key(where, "filter_list")));
  if (task.filters.empty()) task.filters.push_back({"none", {}});
  const bool has_kwargs = yaml.contains("generation_kwargs") && yaml["generation_kwargs"].is_object();
  task.generation_kwargs = std::make_shared<Json>(has_kwargs ? yaml["generation_kwargs"] : Json::object());
}

void parse_splits(const Json& yaml, const std::string& where, TaskConfig& task) {
  task.training_split = find_string(yaml, "training_split", "", where);
  task.validation_split = find_string(yaml, "validation_split", "", where);
  task.test_split = find_string(yaml, "test_split", "", where);
  task.fewshot_split = find_string(yaml, "fewshot_split", "", where);
  if (task.validation_split.empty() && task.test_split.empty())
    throw Error("a task names the split to evaluate").at(where).expected("test_split or validation_split");
}

}  // namespace

TaskConfig parse_task(const Json& yaml, const std::string& where) {
  if (!yaml.is_object()) throw Error("a task is a mapping of keys").at(where);
  for (const auto& [key, value] : yaml.items())
    if (!kKeys.contains(key)) throw Error("unknown key \"{}\" in a task", key).at(where);
  TaskConfig task;
  task.task = require_string(yaml, "task", where);
  task.alias = find_string(yaml, "task_alias", task.task, where);
  task.tags = strings_at(yaml, "tag", where);
  parse_dataset(yaml, where, task);
  parse_splits(yaml, where, task);
  task.keep_rows = string_map(yaml, "keep_rows", where);
  task.text_files = string_map(yaml, "text_files", where);
  task.process_docs = find_string(yaml, "process_docs", "", where);
  task.process_results = find_string(yaml, "process_results", "", where);
  task.output_type =
      named(kOutputTypes, find_string(yaml, "output_type", "generate_until", where), "output_type", where);
  task.templates = parse_templates(yaml, where);
  if (task.output_type == OutputType::kMultipleChoice && task.templates.choice.empty() &&
      task.templates.choices.empty())
    throw Error("a multiple_choice task needs doc_to_choice").at(where);
  task.description = template_text(yaml, "description", where);
  task.target_delimiter = find_string(yaml, "target_delimiter", " ", where);
  task.fewshot_delimiter = find_string(yaml, "fewshot_delimiter", "\n\n", where);
  task.gen_prefix = find_string(yaml, "gen_prefix", "", where);
  task.multiple_inputs = find_bool(yaml, "multiple_inputs", false, where);
  task.unsafe_code = find_bool(yaml, "unsafe_code", false, where);
  if (find_int(yaml, "repeats", 1, where) != 1)
    throw Error("answers are generated once").at(at_key(where, "repeats")).expected("1");
  if (yaml.contains("num_fewshot") && !yaml["num_fewshot"].is_null())
    task.num_fewshot = require_int(yaml, "num_fewshot", where);
  if (task.num_fewshot && *task.num_fewshot < 0)
    throw Error("a number of examples is not negative").at(at_key(where, "num_fewshot"));
  task.limit = find_number(yaml, "limit", 0, where);
  parse_fewshot(yaml, where, task);
  parse_measures(yaml, where, task);
  const bool has_version = yaml.contains("metadata") && yaml["metadata"].is_object();
  task.version = std::make_shared<Json>(has_version ? yaml["metadata"].value("version", Json()) : Json());
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

std::string_view output_type_name(OutputType type) {
  for (const auto& [name, value] : kOutputTypes)
    if (value == type) return name;
  return "";
}

}  // namespace bise
