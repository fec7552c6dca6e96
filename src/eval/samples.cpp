// The lines of the sample files, and the hashes in them.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "eval/results.h"

namespace bise {
namespace {

std::string document_hash(const Sample& sample) {
  return sha256_hex(json_text(*sample.document.row, 2));
}
std::string target_hash(const Sample& sample) {
  return sha256_hex(sample.document.target_text);
}
std::string prompt_hash(const Sample& sample) {
  return sha256_hex(sample.contexts[0]);
}

Json arguments_json(const TaskResult& task, const Sample& sample) {
  Json arguments = Json::object();
  if (task.config.output_type == OutputType::kGenerateUntil) {
    arguments["gen_args_0"] = {{"arg_0", sample.contexts[0]}, {"arg_1", *task.generation_kwargs}};
  } else if (task.config.output_type == OutputType::kLoglikelihoodRolling) {
    arguments["gen_args_0"] = {{"arg_0", sample.continuations[0]}};
  } else {
    for (std::size_t i = 0; i < sample.continuations.size(); ++i)
      arguments[fmt::format("gen_args_{}", i)] = {{"arg_0", sample.context(i)},
                                                  {"arg_1", sample.continuations[i]}};
  }
  return arguments;
}

void add_responses(const TaskResult& task, const Sample& sample, std::size_t filter, Json& line) {
  Json responses = Json::array(), filtered = Json::array();
  if (task.config.output_type == OutputType::kGenerateUntil) {
    responses.push_back(Json::array({sample.response}));
    filtered.push_back(sample.filtered[filter]);
  }
  for (const Likelihood& answer : sample.likelihoods) {
    const std::string number = Json(answer.logprob).dump();
    const Json entry = task.config.output_type == OutputType::kLoglikelihoodRolling
                           ? Json(number)
                           : Json::array({number, answer.greedy ? "True" : "False"});
    responses.push_back(Json::array({entry}));
    filtered.push_back(entry);
  }
  line["resps"] = std::move(responses);
  line["filtered_resps"] = std::move(filtered);
}

Json value_json(const MetricResult& metric, const std::vector<double>& values) {
  if (metric.aggregation == Aggregation::kPooledMean) {
    Json list = Json::array();
    for (const double value : values) list.push_back(value != 0);
    return list;
  }
  return values.size() == 1 ? Json(values[0]) : Json(values);
}

}  // namespace

std::string task_hash(const TaskResult& task) {
  std::string all;
  for (const Sample& sample : task.samples)
    all += document_hash(sample) + prompt_hash(sample) + target_hash(sample);
  return sha256_hex(all);
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
      add_responses(task, sample, f, line);
      line["filter"] = task.config.filters[f].name;
      Json names = Json::array(), values = Json::object();
      for (const MetricResult& metric : task.metrics)
        if (metric.filter == task.config.filters[f].name) {
          names.push_back(metric.metric);
          values[metric.metric] = value_json(metric, metric.values[i]);
        }
      line["metrics"] = names;
      line["doc_hash"] = document_hash(sample);
      line["prompt_hash"] = prompt_hash(sample);
      line["target_hash"] = target_hash(sample);
      line.update(values);
      lines += json_text(line) + "\n";
    }
  return lines;
}

}  // namespace bise
