#include "eval/results.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/files.h"
#include "eval/sha256.h"
#include "report/table.h"

namespace bise {
namespace {

Json standard_error(const MetricResult& metric) {
  return metric.standard_error ? Json(*metric.standard_error) : Json("N/A");
}

Json task_results(const TaskResult& task) {
  Json json = {{"name", task.config.task}, {"alias", task.config.alias}, {"sample_len", task.samples.size()}};
  for (const MetricResult& metric : task.metrics) {
    json[metric.metric + "," + metric.filter] = metric.value;
    json[metric.metric + "_stderr," + metric.filter] = standard_error(metric);
  }
  return json;
}

Json task_version(const TaskResult& task) {
  return task.config.version.empty() ? Json("Yaml") : Json::parse(task.config.version);
}

std::string document_hash(const Sample& sample) {
  return sha256_hex(json_text(*sample.document.row, 2));
}
std::string target_hash(const Sample& sample) {
  return sha256_hex(sample.document.target_text);
}

std::string task_hash(const TaskResult& task) {
  std::string all;
  for (const Sample& sample : task.samples)
    all += document_hash(sample) + sha256_hex(sample.contexts[0]) + target_hash(sample);
  return sha256_hex(all);
}

Json arguments_json(const TaskResult& task, const Sample& sample) {
  Json arguments = Json::object();
  if (sample.continuations.empty()) {
    arguments["gen_args_0"] = {{"arg_0", sample.contexts[0]}, {"arg_1", *task.config.generation_kwargs}};
    return arguments;
  }
  for (std::size_t i = 0; i < sample.continuations.size(); ++i)
    arguments[fmt::format("gen_args_{}", i)] = {{"arg_0", sample.context(i)},
                                                {"arg_1", sample.continuations[i]}};
  return arguments;
}

void add_responses(const Sample& sample, std::size_t filter, Json& line) {
  Json responses = Json::array(), filtered = Json::array();
  if (sample.continuations.empty()) {
    responses.push_back(Json::array({sample.response}));
    filtered.push_back(sample.filtered[filter]);
  }
  for (const Likelihood& answer : sample.likelihoods) {
    const Json pair = Json::array({Json(answer.logprob).dump(), answer.greedy ? "True" : "False"});
    responses.push_back(Json::array({pair}));
    filtered.push_back(pair);
  }
  line["resps"] = std::move(responses);
  line["filtered_resps"] = std::move(filtered);
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

}  // namespace

Json results_json(const std::vector<TaskResult>& tasks, const RunDescription& run) {
  Json results, subtasks, configs, versions, shots, higher, counts, hashes;
  for (const TaskResult& task : tasks) {
    const std::string& name = task.config.task;
    results[name] = task_results(task);
    subtasks[name] = Json::array();
    configs[name] = *task.config.source;
    configs[name]["num_fewshot"] = task.num_fewshot;
    versions[name] = task_version(task);
    shots[name] = task.num_fewshot;
    for (const MetricResult& metric : task.metrics) higher[name][metric.metric] = metric.higher_is_better;
    counts[name] = {{"original", task.original}, {"effective", task.samples.size()}};
    hashes[name] = task_hash(task);
  }
  const Json system = run.system_instruction.empty() ? Json() : Json(run.system_instruction);
  return {{"results", results},
          {"group_subtasks", subtasks},
          {"configs", configs},
          {"versions", versions},
          {"n-shot", shots},
          {"higher_is_better", higher},
          {"n-samples", counts},
          {"config",
           {{"model", "bise"},
            {"model_args", {{"pretrained", run.model}}},
            {"batch_size", "auto"},
            {"limit", run.limit > 0 ? Json(run.limit) : Json()},
            {"gen_kwargs", run.generation_kwargs ? *run.generation_kwargs : Json()},
            {"random_seed", 0},
            {"numpy_seed", 1234},
            {"torch_seed", 1234},
            {"fewshot_seed", run.fewshot_seed}}},
          {"git_hash", run.version},
          {"date", run.start_time},
          {"lm_eval_version", "0.4.13"},
          {"max_length", run.max_length},
          {"task_hashes", hashes},
          {"model_source", "bise"},
          {"model_name", run.model},
          {"model_name_sanitized", sanitized(run.model)},
          {"system_instruction", system},
          {"total_evaluation_time_seconds", fmt::format("{}", run.seconds)}};
}

std::string samples_jsonl(const TaskResult& task) {
  std::string lines;
  for (std::size_t f = 0; f < task.config.filters.size(); ++f)
    for (std::size_t i = 0; i < task.samples.size(); ++i) {
      const Sample& sample = task.samples[i];
      Json line = {{"doc_id", sample.doc_id},
                   {"doc", *sample.document.row},
                   {"target", sample.document.target_text},
                   {"arguments", arguments_json(task, sample)}};
      add_responses(sample, f, line);
      line["filter"] = task.config.filters[f].name;
      Json names = Json::array(), values;
      for (const MetricResult& metric : task.metrics)
        if (metric.filter == task.config.filters[f].name) {
          names.push_back(metric.metric);
          values[metric.metric] = metric.values[i];
        }
      line["metrics"] = names;
      line["doc_hash"] = document_hash(sample);
      line["prompt_hash"] = sha256_hex(sample.contexts[0]);
      line["target_hash"] = target_hash(sample);
      line.update(values);
      lines += json_text(line) + "\n";
    }
  return lines;
}

std::string results_table(const std::vector<TaskResult>& tasks) {
  Table table{{"Tasks", "Version", "Filter", "n-shot", "Metric", "Value", "Stderr"}, {}, 3};
  std::vector<const TaskResult*> sorted;
  for (const TaskResult& task : tasks) sorted.push_back(&task);
  std::ranges::sort(sorted, {}, [](const TaskResult* task) { return task->config.task; });
  for (const TaskResult* task : sorted) {
    bool first = true;
    for (const MetricResult& metric : task->metrics) {
      table.rows.push_back({first ? task->config.alias : "", first ? task->config.version : "", metric.filter,
                            std::to_string(task->num_fewshot), metric.metric,
                            fmt::format("{:.4f}", metric.value),
                            metric.standard_error ? fmt::format("± {:.4f}", *metric.standard_error) : "N/A"});
      first = false;
    }
  }
  return markdown_table(table);
}

std::filesystem::path write_results(const std::filesystem::path& output, const std::vector<TaskResult>& tasks,
                                    const RunDescription& run, bool log_samples) {
  const std::string time = time_text(run.start_time);
  std::filesystem::path folder = output / sanitized(run.model), file = folder / ("results_" + time + ".json");
  if (output.extension() == ".json") {
    folder = output.parent_path();
    file = folder / (output.stem().string() + "_" + time + ".json");
  }
  if (!folder.empty()) std::filesystem::create_directories(folder);
  if (log_samples)
    for (const TaskResult& task : tasks)
      write_file(folder / fmt::format("samples_{}_{}.jsonl", task.config.task, time), samples_jsonl(task));
  write_file(file, json_text(results_json(tasks, run), 2) + "\n");
  return file;
}

}  // namespace bise
