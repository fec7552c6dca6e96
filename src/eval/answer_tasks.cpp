#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/error.h"
#include "base/progress.h"
#include "eval/evaluate.h"
#include "eval/filters.h"
#include "eval/metrics.h"

namespace bise {
namespace {

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
GenerateRequest generate_request(const TaskResult& task, const Sample& sample) {
  const std::string where = task.config.task + ": generation_kwargs";
  const Json& kwargs = *task.generation_kwargs;
  GenerateRequest request;
  request.context = sample.contexts[0];
  request.until = stop_strings(task.config, kwargs);
  for (const char* key : {"max_completion_tokens", "max_tokens", "max_new_tokens", "max_gen_toks"})
    request.max_gen_toks = find_int(kwargs, key, request.max_gen_toks, where);
  if (request.max_gen_toks < 1) throw Error("max_gen_toks is not positive").at(where);
  const double temperature = find_number(kwargs, "temperature", 0, where);
  // As the harness: greedy unless it is said otherwise.
  if (find_bool(kwargs, "do_sample", temperature > 0, where)) {
    request.temperature = find_number(kwargs, "temperature", 1, where);
    request.top_p = find_number(kwargs, "top_p", 1, where);
  }
  return request;
}

// What the journal does not know of `requests`, and where the answers go.
template <class Request, class Answer>
struct Open {
  std::vector<Request> requests;
  std::vector<Answer*> answers;

  void add(Request request, Answer& answer, const AnswerJournal* journal) {
    if (journal)
      if (auto known = journal->find(request)) {
        answer = std::move(*known);
        return;
      }
    requests.push_back(std::move(request));
    answers.push_back(&answer);
  }

  auto on_answer(Progress& progress, AnswerJournal* journal) {
    return [this, &progress, journal](std::size_t index, const Answer& answer) {
      if (journal) journal->add(requests[index], answer);
      *answers[index] = answer;
      progress.advance();
    };
  }
};

void ask_likelihoods(std::vector<TaskResult>& tasks, LanguageModel& model, AnswerJournal* journal) {
  Open<LikelihoodRequest, Likelihood> open;
  for (TaskResult& task : tasks) {
    const bool rolling = task.config.output_type == OutputType::kLoglikelihoodRolling;
    for (Sample& sample : task.samples)
      for (std::size_t i = 0; i < sample.continuations.size(); ++i)
        open.add({sample.context(i), sample.continuations[i], rolling}, sample.likelihoods[i], journal);
  }
  if (open.requests.empty()) return;
  Progress progress("scoring", "requests", static_cast<std::int64_t>(open.requests.size()));
  model.loglikelihood(open.requests, open.on_answer(progress, journal));
}

void ask_texts(std::vector<TaskResult>& tasks, LanguageModel& model, AnswerJournal* journal) {
  Open<GenerateRequest, std::string> open;
  for (TaskResult& task : tasks) {
    if (task.config.output_type != OutputType::kGenerateUntil) continue;
    for (Sample& sample : task.samples) open.add(generate_request(task, sample), sample.response, journal);
  }
  if (open.requests.empty()) return;
  Progress progress("generating", "answers", static_cast<std::int64_t>(open.requests.size()));
  model.generate(open.requests, open.on_answer(progress, journal));
}

// Runs the answered programs on a few threads, as HF's code_eval does.
void run_programs(TaskResult& task, const Sandbox& sandbox) {
  constexpr unsigned kWorkers = 4;
  std::atomic<std::size_t> next = 0;
  std::mutex mutex;
  std::exception_ptr failure;
  Progress progress("running programs", "programs", static_cast<std::int64_t>(task.samples.size()));
  const auto work = [&] {
    for (std::size_t i; (i = next++) < task.samples.size();) {
      Sample& sample = task.samples[i];
      try {
        sample.passed =
            sandbox.run(sample.filtered.front() + "\n" + sample.document.target) == ProgramEnd::kPassed;
      } catch (...) {
        const std::lock_guard lock(mutex);
        failure = std::current_exception();
        next = task.samples.size();
        return;
      }
      const std::lock_guard lock(mutex);
      progress.advance();
    }
  };
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < std::min(kWorkers, std::max(1u, std::thread::hardware_concurrency())); ++i)
      threads.emplace_back(work);
  }
  if (failure) std::rethrow_exception(failure);
}

void filter_answers(TaskResult& task) {
  if (task.config.output_type != OutputType::kGenerateUntil) return;
  for (Sample& sample : task.samples) {
    sample.filtered.clear();
    for (const FilterConfig& filter : task.config.filters)
      sample.filtered.push_back(apply_filters(filter, sample.response, sample.document, task.config.task));
  }
}

void measure(TaskResult& task, std::int64_t bootstrap_draws) {
  const TaskConfig& config = task.config;
  for (std::size_t f = 0; f < config.filters.size(); ++f)
    for (const MetricConfig& metric : config.metrics) {
      MetricResult result;
      result.metric = metric.name;
      result.filter = config.filters[f].name;
      result.aggregation = metric.aggregation;
      result.higher_is_better = metric.higher_is_better;
      for (const Sample& sample : task.samples)
        result.values.push_back(sample_metric(config, metric, sample, f));
      aggregate(result, metric.aggregation, bootstrap_draws);
      task.metrics.push_back(std::move(result));
    }
}

}  // namespace

void answer_tasks(std::vector<TaskResult>& tasks, const EvaluationOptions& options, LanguageModel& model,
                  AnswerJournal* journal) {
  ask_likelihoods(tasks, model, journal);
  ask_texts(tasks, model, journal);
  for (TaskResult& task : tasks) {
    filter_answers(task);
    if (task.config.process_results == "code" && options.sandbox) run_programs(task, *options.sandbox);
    measure(task, options.bootstrap_draws);
  }
}

}  // namespace bise
