#include "eval/results.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <map>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/files.h"

namespace bise {
namespace {

constexpr const char* kHarnessVersion = "0.4.13";  // whose definitions the tasks are

Json or_na(const std::optional<double>& error) {
  return error ? Json(*error) : Json("N/A");
}
Json or_null(const std::string& text) {
  return text.empty() ? Json() : Json(text);
}

Json task_results(const TaskResult& task) {
  Json json = {{"name", task.config.task}, {"alias", task.config.alias}, {"sample_len", task.samples.size()}};
  for (const MetricResult& metric : task.metrics) {
    json[metric.metric + "," + metric.filter] = metric.value;
    json[metric.metric + "_stderr," + metric.filter] = or_na(metric.standard_error);
  }
  return json;
}

Json group_results(const TaskGroup& group, const Evaluation& evaluation) {
  Json json = {{"alias", group.alias}, {"name", group.name}}, counts = Json::object();
  if (group.metrics.empty()) return json;
  std::size_t samples = 0;
  for (const TaskResult* task : tasks_of(group, evaluation.groups, evaluation.tasks))
    samples += task->samples.size();
  json["sample_len"] = samples;
  for (const GroupValue& value : group_values(group, evaluation.groups, evaluation.tasks)) {
    json[value.metric + "," + value.filter] = value.value;
    json[value.metric + "_stderr," + value.filter] = or_na(value.standard_error);
    counts[value.metric + "," + value.filter] = value.samples;
  }
  if (!counts.empty()) json["sample_count"] = std::move(counts);
  return json;
}

const char* aggregation_name(Aggregation how) {
  switch (how) {
    case Aggregation::kMean: return "mean";
    case Aggregation::kMedian: return "median";
    case Aggregation::kPerplexity: return "perplexity";
    case Aggregation::kWeightedPerplexity: return "weighted_perplexity";
    case Aggregation::kBitsPerByte: return "bits_per_byte";
    case Aggregation::kPooledMean: return "agg_inst_level_acc";
  }
  return "";
}

Json metric_json(const MetricConfig& metric) {
  Json json = {{"metric", metric.name},
               {"aggregation", aggregation_name(metric.aggregation)},
               {"higher_is_better", metric.higher_is_better}};
  if (metric.ignore_case) json["ignore_case"] = true;
  if (metric.ignore_punctuation) json["ignore_punctuation"] = true;
  if (metric.ignore_numbers) json["ignore_numbers"] = true;
  if (!metric.regexes_to_ignore.empty()) json["regexes_to_ignore"] = metric.regexes_to_ignore;
  return json;
}

Json filter_json(const FilterConfig& filter) {
  Json steps = Json::array();
  for (const FilterStep& step : filter.steps) {
    Json json = {{"function", step.function}};
    if (step.function.ends_with("regex")) {
      json["regex_pattern"] = step.regex_pattern;
      json["group_select"] = step.group_select;
    }
    steps.push_back(std::move(json));
  }
  return {{"name", filter.name}, {"filter", std::move(steps)}};
}

Json choice_json(const DocumentTemplates& templates) {
  return templates.choices.empty() ? or_null(templates.choice) : Json(templates.choices);
}

Json config_json(const TaskResult& result) {
  const TaskConfig& task = result.config;
  Json json = {{"task", task.task}};
  if (task.alias != task.task) json["task_alias"] = task.alias;
  if (!task.tags.empty()) json["tag"] = task.tags;
  json["dataset_path"] = task.hub_path.empty() ? "json" : task.hub_path;
  json["dataset_name"] = or_null(task.hub_name);
  json["dataset_kwargs"] = {{"data_files", {{evaluation_split(task), result.data_file.string()}}},
                            {"sha256", sha256_hex(read_file(result.data_file))}};
  json["training_split"] = or_null(task.training_split);
  json["validation_split"] = or_null(task.validation_split);
  json["test_split"] = or_null(task.test_split);
  json["fewshot_split"] = or_null(task.fewshot_split);
  json["process_docs"] = or_null(task.process_docs);
  json["doc_to_text"] = task.templates.text;
  json["doc_to_target"] = task.templates.target;
  json["unsafe_code"] = task.unsafe_code;
  json["doc_to_choice"] = choice_json(task.templates);
  json["process_results"] = or_null(task.process_results);
  json["description"] = task.description;
  json["target_delimiter"] = task.target_delimiter;
  json["fewshot_delimiter"] = task.fewshot_delimiter;
  json["gen_prefix"] = or_null(task.gen_prefix);
  json["fewshot_config"] = {{"sampler", task.fewshot.sampler},
                            {"split", or_null(task.fewshot.samples.empty() ? fewshot_pool_split(task) : "")},
                            {"samples", task.fewshot.samples.empty() ? Json() : Json(task.fewshot.samples)},
                            {"doc_to_text", task.fewshot.templates.text},
                            {"doc_to_choice", choice_json(task.fewshot.templates)},
                            {"doc_to_target", task.fewshot.templates.target},
                            {"fewshot_delimiter", task.fewshot_delimiter},
                            {"target_delimiter", task.target_delimiter}};
  json["num_fewshot"] = result.num_fewshot;
  for (const MetricConfig& metric : task.metrics) json["metric_list"].push_back(metric_json(metric));
  json["output_type"] = output_type_name(task.output_type);
  if (task.output_type == OutputType::kGenerateUntil) json["generation_kwargs"] = *result.generation_kwargs;
  json["repeats"] = 1;
  if (task.filters.front().name != "none")
    for (const FilterConfig& filter : task.filters) json["filter_list"].push_back(filter_json(filter));
  json["should_decontaminate"] = false;
  json["metadata"] = {{"version", *task.version}};
  Json without_nulls = Json::object();
  for (auto& [key, value] : json.items())
    if (!value.is_null()) without_nulls[key] = std::move(value);
  return without_nulls;
}

// Local ISO time with microseconds, colons as dashes.
std::string time_text(double unix_seconds) {
  const auto whole = static_cast<std::time_t>(unix_seconds);
  const auto micros = static_cast<int>((unix_seconds - std::floor(unix_seconds)) * 1e6);
  return fmt::format("{:%Y-%m-%dT%H-%M-%S}.{:06}", fmt::localtime(whole), micros);
}

std::string sanitized(const std::string& name) {
  constexpr std::string_view kUnsafe = "\"<>:/|\\?*[]";
  std::string result;
  bool in_run = false;
  for (const char c : name) {
    const bool unsafe = kUnsafe.find(c) != std::string_view::npos;
    if (!unsafe) result += c;
    if (unsafe && !in_run) result += "__";
    in_run = unsafe;
  }
  return result;
}

// By name, as the harness sorts some of its parts.
Json sorted(const Json& object) {
  std::map<std::string, Json> entries;
  for (const auto& [key, value] : object.items()) entries[key] = value;
  Json result = Json::object();
  for (auto& [key, value] : entries) result[key] = std::move(value);
  return result;
}

void add_groups(const Evaluation& evaluation, Json& json) {
  for (const TaskGroup& group : evaluation.groups) {
    const Json results = group_results(group, evaluation);
    json["results"][group.name] = results;
    if (!group.metrics.empty()) json["groups"][group.name] = results;
    json["group_subtasks"][group.name] = group.members;
    json["versions"][group.name] = group.version;
    std::vector<Json> shots;
    Json higher = Json::object();
    for (const std::string& member : group.members) {
      if (!json["configs"].contains(member)) continue;  // only single tasks pass theirs on
      if (std::ranges::find(shots, json["n-shot"][member]) == shots.end())
        shots.push_back(json["n-shot"][member]);
      for (const auto& [metric, value] : json["higher_is_better"][member].items())
        higher[metric] = !higher.contains(metric) || higher[metric] == value ? value : Json();
    }
    if (shots.size() == 1) json["n-shot"][group.name] = shots.front();
    if (!higher.empty()) json["higher_is_better"][group.name] = std::move(higher);
  }
  for (const char* key : {"configs", "versions", "n-shot", "higher_is_better"}) json[key] = sorted(json[key]);
}

Json run_config_json(const EvaluationOptions& options, const RunDescription& run) {
  return {{"model", run.model},
          {"model_args", *run.model_args},
          {"batch_size", run.batch_size},
          {"batch_sizes", Json::array()},
          {"device", or_null(run.device)},
          {"use_cache", Json()},
          {"limit", options.limit > 0 ? Json(options.limit) : Json()},
          {"bootstrap_iters", options.bootstrap_draws},
          {"gen_kwargs", options.generation_kwargs ? *options.generation_kwargs : Json::object()},
          {"random_seed", run.seeds[0]},
          {"numpy_seed", run.seeds[1]},
          {"torch_seed", run.seeds[2]},
          {"fewshot_seed", run.seeds[3]}};
}

}  // namespace

Json results_json(const Evaluation& evaluation) {
  const EvaluationOptions& options = evaluation.options;
  const RunDescription& run = evaluation.run;
  // In the harness's order of keys; groups stand before group_subtasks where there are some.
  Json json = {{"results", Json::object()}};
  if (std::ranges::any_of(evaluation.groups, [](const TaskGroup& group) { return !group.metrics.empty(); }))
    json["groups"] = Json::object();
  for (const char* key : {"group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples"})
    json[key] = Json::object();
  Json hashes = Json::object();
  for (const TaskResult& task : evaluation.tasks) {
    const std::string& name = task.config.task;
    json["results"][name] = task_results(task);
    json["configs"][name] = config_json(task);
    json["versions"][name] = task.config.version->is_null() ? Json("Yaml") : *task.config.version;
    json["n-shot"][name] = task.num_fewshot;
    for (const MetricResult& metric : task.metrics)
      json["higher_is_better"][name][metric.metric] = metric.higher_is_better;
    json["n-samples"][name] = {{"original", task.original}, {"effective", task.samples.size()}};
    hashes[name] = task_hash(task);
  }
  add_groups(evaluation, json);
  const auto with_hash = [](const std::string& text) {
    return text.empty() ? Json() : Json(sha256_hex(text));
  };
  const Json rest = {
      {"config", run_config_json(options, run)},
      {"git_hash", run.version},
      {"date", run.start_time},
      {"pretty_env_info", "bise " + run.version},
      {"transformers_version", Json()},
      {"lm_eval_version", kHarnessVersion},
      {"upper_git_hash", Json()},
      {"max_length", run.max_length},
      {"task_hashes", hashes},
      {"model_source", run.model},
      {"model_name", run.model_name},
      {"model_name_sanitized", sanitized(run.model_name)},
      {"system_instruction", or_null(options.system_instruction)},
      {"system_instruction_sha", with_hash(options.system_instruction)},
      {"fewshot_as_multiturn", options.chat_template ? Json(options.fewshot_as_multiturn) : Json()},
      {"chat_template", or_null(run.chat_template)},
      {"chat_template_sha", with_hash(run.chat_template)},
      {"scored_tokens", run.scored_tokens},
      {"computed_tokens", run.computed_tokens},
      {"total_evaluation_time_seconds", fmt::format("{}", run.seconds)}};
  json.update(rest);
  return json;
}

std::filesystem::path results_folder(const std::filesystem::path& output, const std::string& model_name) {
  return output.extension() == ".json" ? output.parent_path() : output / sanitized(model_name);
}

std::filesystem::path write_results(const std::filesystem::path& output, const Evaluation& evaluation,
                                    bool log_samples) {
  const std::string time = time_text(evaluation.run.start_time);
  const std::filesystem::path folder = results_folder(output, evaluation.run.model_name);
  const std::string stem = output.extension() == ".json" ? output.stem().string() : "results";
  if (!folder.empty()) std::filesystem::create_directories(folder);
  if (log_samples)
    for (const TaskResult& task : evaluation.tasks)
      write_file(folder / fmt::format("samples_{}_{}.jsonl", task.config.task, time), samples_jsonl(task));
  const std::filesystem::path file = folder / fmt::format("{}_{}.json", stem, time);
  write_file(file, json_text(results_json(evaluation), 2) + "\n");
  return file;
}

}  // namespace bise
