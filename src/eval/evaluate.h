// Runs tasks on a model: documents, prompts, answers, metrics. One thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "eval/document.h"
#include "eval/language_model.h"
#include "eval/task.h"
#include "text/chat_template.h"

namespace bise {

struct EvaluationOptions {
  std::filesystem::path data_dir;
  std::optional<std::int64_t> num_fewshot;  // instead of the task's own, where that is not 0
  double limit = 0;                         // documents of each task; below 1 a share of them, 0 = all
  std::string system_instruction;
  std::uint64_t fewshot_seed = 1234;
  std::shared_ptr<const Json> generation_kwargs;  // an object that is put over the task's, or null
  // Prompts are conversations in this template; null = plain text.
  std::shared_ptr<const ChatTemplate> chat_template;
  bool fewshot_as_multiturn = true;  // with a chat template: examples are turns of their own
};

// A document with what the model was asked about it and what it answered.
struct Sample {
  std::int64_t doc_id = 0;
  Document document;
  // One context for all requests, or one for each where choices are contexts; one continuation for each.
  // A generated answer has one context and no continuation.
  std::vector<std::string> contexts, continuations;
  std::vector<Likelihood> likelihoods;
  std::string response;
  std::vector<std::string> filtered;  // the response, by filter

  const std::string& context(std::size_t request) const {
    return contexts.size() == 1 ? contexts[0] : contexts[request];
  }
};

// One metric after one filter.
struct MetricResult {
  std::string metric, filter;
  bool higher_is_better = true;
  std::vector<double> values;  // one a sample
  double value = 0;
  std::optional<double> standard_error;  // absent: not defined for this number of samples
};

struct TaskResult {
  TaskConfig config;
  std::int64_t num_fewshot = 0, original = 0;  // documents of the split
  std::vector<Sample> samples;
  std::vector<MetricResult> metrics;
};

// Documents and prompts of a task, not answered yet. Throws Error for missing or damaged data.
TaskResult prepare_task(const TaskConfig& task, const EvaluationOptions& options);

// Asks the model everything that `tasks` need, together, then fills in their metrics. Shows progress.
void answer_tasks(std::vector<TaskResult>& tasks, const EvaluationOptions& options, LanguageModel& model);

}  // namespace bise
