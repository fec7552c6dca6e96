#include "eval/evaluate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/progress.h"
#include "eval/dataset.h"
#include "eval/filters.h"
#include "eval/metrics.h"
#include "eval/prompts.h"

namespace bise {
namespace {

std::size_t limited(std::size_t rows, double limit) {
  if (limit <= 0) return rows;
  const double wanted = limit < 1 ? std::ceil(static_cast<double>(rows) * limit) : std::floor(limit);
  return std::min(rows, static_cast<std::size_t>(wanted));
}

std::int64_t shots_of(const TaskConfig& task, const EvaluationOptions& options) {
  const std::int64_t own = task.num_fewshot.value_or(0);
  if (!options.num_fewshot || (task.num_fewshot && own == 0)) return own;
  return *options.num_fewshot;
}

std::vector<Json> split_rows(const TaskConfig& task, const std::string& split,
                             const EvaluationOptions& options) {
  if (task.data_files.empty()) return load_split(options.data_dir, task.dataset, split);
  const auto file = task.data_files.find(split);
  if (file == task.data_files.end()) throw Error("data_files has no split \"{}\"", split).at(task.task);
  return load_rows(file->second);
}

std::vector<Document> fewshot_pool(const TaskConfig& task, const DocumentMaker& maker,
                                   const EvaluationOptions& options) {
  std::vector<Json> rows = task.fewshot_samples;
  const std::string& split = fewshot_pool_split(task);
  if (rows.empty()) rows = split_rows(task, split, options);
  std::vector<Document> pool;
  pool.reserve(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i)
    pool.push_back(maker.make(std::move(rows[i]), fmt::format("{}: example {}", task.task, i)));
  return pool;
}

std::string rendered(const ChatTemplate& chat, const Json& messages) {
  ChatOptions options;
  options.continue_final_message = messages.back()["role"] == "assistant";
  options.add_generation_prompt = !options.continue_final_message;
  std::string text;
  for (const TextSegment& segment : chat.render(messages, Json(), options)) text += segment.text;
  return text;
}

Json without_first(Json messages) {
  messages.erase(0);
  return messages;
}

// Some templates know no system message; then it is left out, as the harness does.
std::string chat_prompt(const ChatTemplate& chat, const Json& messages) {
  if (messages[0]["role"] != "system") return rendered(chat, messages);
  try {
    return rendered(chat, messages);
  } catch (const Error&) {
    return rendered(chat, without_first(messages));
  }
}

std::string prompt(const TaskConfig& task, const EvaluationOptions& options, const std::string& system,
                   const std::vector<const Document*>& shots, const Document& document, std::size_t choice) {
  if (!options.chat_template) return plain_prompt(task, system, shots, document, choice);
  return chat_prompt(*options.chat_template,
                     chat_messages(task, system, shots, document, choice, options.fewshot_as_multiturn));
}

void add_requests(const TaskConfig& task, const EvaluationOptions& options, const std::string& system,
                  const std::vector<const Document*>& shots, Sample& sample) {
  const Document& document = sample.document;
  const bool chat = options.chat_template != nullptr;
  const std::size_t contexts = task.multiple_inputs ? document.choices.size() : 1;
  for (std::size_t i = 0; i < contexts; ++i)
    sample.contexts.push_back(prompt(task, options, system, shots, document, i));
  if (task.output_type == OutputType::kMultipleChoice) {
    for (std::size_t i = 0; i < document.choices.size(); ++i)
      sample.continuations.push_back(continuation(task, document, i, chat));
  } else if (task.output_type == OutputType::kLoglikelihood) {
    sample.continuations.push_back((chat ? "" : task.target_delimiter) + document.target);
  }
  sample.likelihoods.resize(sample.continuations.size());
}

std::vector<std::string> stop_strings(const TaskConfig& task, const Json& kwargs) {
  std::vector<std::string> until;
  if (!kwargs.contains("until")) return {task.fewshot_delimiter};
  const Json& listed = kwargs["until"];
  if (listed.is_string()) {
    if (const auto text = listed.get<std::string>(); !text.empty()) until.push_back(text);
    return until;
  }
  for (const Json& entry : listed) {
    if (!entry.is_string()) throw Error("a stop text is not a string").at(task.task + ": until");
    if (!entry.get_ref<const std::string&>().empty()) until.push_back(entry.get<std::string>());
  }
  return until;
}

GenerateRequest generate_request(const TaskConfig& task, const EvaluationOptions& options,
                                 const Sample& sample) {
  const std::string where = task.task + ": generation_kwargs";
  Json kwargs = *task.generation_kwargs;
  if (options.generation_kwargs) kwargs.update(*options.generation_kwargs);
  GenerateRequest request;
  request.context = sample.contexts[0];
  request.until = stop_strings(task, kwargs);
  for (const char* key : {"max_completion_tokens", "max_tokens", "max_new_tokens", "max_gen_toks"})
    request.max_gen_toks = find_int(kwargs, key, request.max_gen_toks, where);
  if (find_bool(kwargs, "do_sample", false, where)) {
    request.temperature = find_number(kwargs, "temperature", 1, where);
    request.top_p = find_number(kwargs, "top_p", 1, where);
  }
  return request;
}

void ask_likelihoods(std::vector<TaskResult>& tasks, LanguageModel& model) {
  std::vector<LikelihoodRequest> requests;
  std::vector<Likelihood*> answers;
  for (TaskResult& task : tasks)
    for (Sample& sample : task.samples)
      for (std::size_t i = 0; i < sample.continuations.size(); ++i) {
        requests.push_back({sample.context(i), sample.continuations[i]});
        answers.push_back(&sample.likelihoods[i]);
      }
  if (requests.empty()) return;
  Progress progress("scoring", "requests", static_cast<std::int64_t>(requests.size()));
  model.loglikelihood(requests, [&](std::size_t index, const Likelihood& answer) {
    *answers[index] = answer;
    progress.advance();
  });
}

void ask_texts(std::vector<TaskResult>& tasks, const EvaluationOptions& options, LanguageModel& model) {
  std::vector<GenerateRequest> requests;
  std::vector<Sample*> samples;
  for (TaskResult& task : tasks) {
    if (task.config.output_type != OutputType::kGenerateUntil) continue;
    for (Sample& sample : task.samples) {
      requests.push_back(generate_request(task.config, options, sample));
      samples.push_back(&sample);
    }
  }
  if (requests.empty()) return;
  Progress progress("generating", "answers", static_cast<std::int64_t>(requests.size()));
  model.generate(requests, [&](std::size_t index, const std::string& text) {
    samples[index]->response = text;
    progress.advance();
  });
}

void measure(TaskResult& task) {
  const TaskConfig& config = task.config;
  for (Sample& sample : task.samples)
    if (config.output_type == OutputType::kGenerateUntil)
      for (const FilterConfig& filter : config.filters)
        sample.filtered.push_back(apply_filters(filter, sample.response, config.task));
  for (std::size_t f = 0; f < config.filters.size(); ++f)
    for (const MetricConfig& metric : config.metrics) {
      MetricResult result{metric.name, config.filters[f].name, metric.higher_is_better, {}, 0, {}};
      for (const Sample& sample : task.samples)
        result.values.push_back(sample_metric(config, metric, sample, f));
      aggregate_mean(result);
      task.metrics.push_back(std::move(result));
    }
}

}  // namespace

TaskResult prepare_task(const TaskConfig& task, const EvaluationOptions& options) {
  TaskResult result;
  result.config = task;
  result.num_fewshot = shots_of(task, options);
  if (task.output_type == OutputType::kLoglikelihoodRolling)
    throw Error("tasks of output_type loglikelihood_rolling cannot be run yet").at(task.task);
  const DocumentMaker maker(task);
  std::vector<Document> pool;
  if (result.num_fewshot > 0) pool = fewshot_pool(task, maker, options);
  FewshotSampler sampler(task, pool, result.num_fewshot, options.fewshot_seed);
  std::vector<Json> rows = split_rows(task, evaluation_split(task), options);
  result.original = static_cast<std::int64_t>(rows.size());
  rows.resize(limited(rows.size(), options.limit));
  for (std::size_t i = 0; i < rows.size(); ++i) {
    Sample sample;
    sample.doc_id = static_cast<std::int64_t>(i);
    sample.document = maker.make(std::move(rows[i]), fmt::format("{}: document {}", task.task, i));
    const std::string system =
        system_text(task, options.system_instruction, maker.description(*sample.document.row));
    add_requests(task, options, system, sampler.shots(sample.document), sample);
    result.samples.push_back(std::move(sample));
  }
  return result;
}

void answer_tasks(std::vector<TaskResult>& tasks, const EvaluationOptions& options, LanguageModel& model) {
  ask_likelihoods(tasks, model);
  ask_texts(tasks, options, model);
  for (TaskResult& task : tasks) measure(task);
}

}  // namespace bise
