// Runs tasks on a model: documents, prompts, answers, metrics. One thread.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "eval/answer_journal.h"
#include "eval/document.h"
#include "eval/language_model.h"
#include "eval/sandbox.h"
#include "eval/task.h"
#include "eval/task_registry.h"
#include "text/chat_template.h"

namespace bise {

struct EvaluationOptions {
  std::filesystem::path data_dir;
  std::optional<std::int64_t> num_fewshot;  // instead of the task's own, where that is not 0
  double limit = 0;                         // documents of each task; below 1 a share of them, 0 = all
  std::string system_instruction;
  std::uint64_t random_seed = 0;  // of Python's global generator, which some rows draw from
  std::uint64_t fewshot_seed = 1234;
  std::int64_t bootstrap_draws = 100000;
  std::shared_ptr<const Json> generation_kwargs;  // an object that is put over the task's, or null
  // Prompts are conversations in this template; null = plain text.
  std::shared_ptr<const ChatTemplate> chat_template;
  bool fewshot_as_multiturn = true;        // with a chat template: examples are turns of their own
  std::shared_ptr<const Sandbox> sandbox;  // runs answers that are programs; null = such tasks are refused
};

// A document with what the model was asked about it and what it answered.
struct Sample {
  std::int64_t doc_id = 0;
  Document document;
  // One context for all requests, or one for each where choices are contexts; one continuation for each.
  // A generated answer has one context and no continuation; a text that is scored as a whole has a
  // continuation and the context "".
  std::vector<std::string> contexts, continuations;
  std::vector<Likelihood> likelihoods;
  std::string response;
  std::vector<std::string> filtered;  // the response, by filter
  bool passed = false;                // the program that was answered

  const std::string& context(std::size_t request) const {
    return contexts.size() == 1 ? contexts[0] : contexts[request];
  }
};

// One metric after one filter.
struct MetricResult {
  std::string metric, filter;
  Aggregation aggregation = Aggregation::kMean;
  bool higher_is_better = true;
  std::vector<std::vector<double>> values;  // of each sample (metrics.h)
  double value = 0;
  std::optional<double> standard_error;  // absent: not defined
};

struct TaskResult {
  TaskConfig config;
  std::filesystem::path data_file;                // that the documents stand in
  std::int64_t num_fewshot = 0, original = 0;     // documents of the split
  std::shared_ptr<const Json> generation_kwargs;  // the user's put over the task's
  std::vector<Sample> samples;
  std::vector<MetricResult> metrics;
};

// Documents and prompts of the tasks, not answered yet, in order. Throws Error for missing or damaged data.
std::vector<TaskResult> prepare_tasks(const std::vector<TaskConfig>& tasks, const EvaluationOptions& options);

// Asks the model everything that `tasks` need, together, then fills in their metrics. Answers that `journal`
// (may be null) knows are not asked for, new ones are added to it. Shows progress.
void answer_tasks(std::vector<TaskResult>& tasks, const EvaluationOptions& options, LanguageModel& model,
                  AnswerJournal* journal = nullptr);

// A metric that a group takes over all its tasks.
struct GroupValue {
  std::string metric, filter;
  double value = 0;
  std::optional<double> standard_error;
  std::int64_t samples = 0;
};

// Means weighted by the number of samples, with the pooled error sqrt(sum (n_i - 1) se_i^2 n_i / (N - k) /
// N); or plain means, with sqrt(sum se_i^2) / k. `groups` are all groups of the selection.
std::vector<GroupValue> group_values(const TaskGroup& group, const std::vector<TaskGroup>& groups,
                                     const std::vector<TaskResult>& tasks);
// The single tasks of a group and of the groups in it.
std::vector<const TaskResult*> tasks_of(const TaskGroup& group, const std::vector<TaskGroup>& groups,
                                        const std::vector<TaskResult>& tasks);

}  // namespace bise
