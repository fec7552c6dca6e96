#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "eval/bbh_prompt.h"
#include "eval/dataset.h"
#include "eval/evaluate.h"
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

// What all documents of a task are made with.
struct TaskData {
  const TaskConfig& task;
  const EvaluationOptions& options;
  PythonRandom& random;
  Json common = Json::object();  // variables of the templates
};

std::filesystem::path split_file(const TaskData& data, const std::string& split) {
  if (data.task.data_files.empty()) return data.options.data_dir / data.task.dataset / (split + ".jsonl");
  const auto file = data.task.data_files.find(split);
  if (file == data.task.data_files.end())
    throw Error("data_files has no split \"{}\"", split).at(data.task.task);
  return file->second;
}

// The rows of a split that the task keeps.
std::vector<Json> split_rows(const TaskData& data, const std::string& split) {
  const TaskConfig& task = data.task;
  std::vector<Json> rows = task.data_files.empty() ? load_split(data.options.data_dir, task, split)
                                                   : load_rows(split_file(data, split));
  std::erase_if(rows, [&](const Json& row) {
    return std::ranges::any_of(task.keep_rows, [&](const auto& kept) {
      return require_string(row, kept.first.c_str(), task.task + ": keep_rows") != kept.second;
    });
  });
  if (rows.empty()) throw Error("no row of the split is the task's").at(task.task);
  return rows;
}

// Exemplars and texts that are too long for a task's own file.
void read_texts(TaskConfig& task, const std::filesystem::path& data_dir, Json& common) {
  for (const auto& [name, file] : task.text_files) common[name] = load_text(data_dir, file, task.task);
  FewshotConfig& fewshot = task.fewshot;
  if (!fewshot.samples_file.empty()) {
    require_text_file(data_dir, fewshot.samples_file, task.task);
    fewshot.samples = load_rows(data_dir / fewshot.samples_file);
  }
  if (!fewshot.bbh_prompt_file.empty()) {
    BbhPrompt prompt = parse_bbh_prompt(load_text(data_dir, fewshot.bbh_prompt_file, task.task),
                                        (data_dir / fewshot.bbh_prompt_file).string());
    task.description = std::move(prompt.description);
    fewshot.samples = std::move(prompt.examples);
  }
}

std::vector<Document> fewshot_pool(const TaskData& data) {
  const TaskConfig& task = data.task;
  const DocumentMaker maker(task, task.fewshot.templates, data.common, data.random);
  const bool embedded = !task.fewshot.samples.empty();
  std::vector<Json> rows = embedded ? task.fewshot.samples : split_rows(data, fewshot_pool_split(task));
  std::vector<Document> pool;
  pool.reserve(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    // Worked examples of MATH say that they are (the harness's doc_to_target asks).
    if (embedded && !rows[i].contains("few_shot")) rows[i]["few_shot"] = "1";
    pool.push_back(maker.make(std::move(rows[i]), fmt::format("{}: example {}", task.task, i), embedded));
  }
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
  if (task.output_type == OutputType::kLoglikelihoodRolling) {
    sample.contexts = {""};
    sample.continuations.push_back(document.target);
  } else if (task.output_type == OutputType::kMultipleChoice) {
    for (std::size_t i = 0; i < document.choices.size(); ++i)
      sample.continuations.push_back(continuation(task, document, i, chat));
  } else if (task.output_type == OutputType::kLoglikelihood) {
    sample.continuations.push_back((chat ? "" : task.target_delimiter) + document.target);
  }
  sample.likelihoods.resize(sample.continuations.size());
}
Json merged_kwargs(const TaskConfig& task, const EvaluationOptions& options) {
  Json kwargs = *task.generation_kwargs;
  if (options.generation_kwargs) kwargs.update(*options.generation_kwargs);
  return kwargs;
}
TaskResult prepare_task(const TaskConfig& task, const EvaluationOptions& options, PythonRandom& random) {
  TaskResult result;
  result.config = task;
  result.num_fewshot = shots_of(task, options);
  if (task.unsafe_code && !options.sandbox)
    throw Error("the task runs programs that the model writes; allow it with --allow-code-execution")
        .at(task.task);
  TaskData data{result.config, options, random};
  read_texts(result.config, options.data_dir, data.common);
  result.generation_kwargs = std::make_shared<Json>(merged_kwargs(task, options));
  std::vector<Document> pool;
  if (result.num_fewshot > 0) pool = fewshot_pool(data);
  FewshotSampler sampler(result.config, pool, result.num_fewshot, options.fewshot_seed);
  result.data_file = split_file(data, evaluation_split(task));
  std::vector<Json> rows = split_rows(data, evaluation_split(task));
  result.original = static_cast<std::int64_t>(rows.size());
  const std::size_t count = limited(rows.size(), options.limit > 0 ? options.limit : task.limit);
  const DocumentMaker maker(result.config, task.templates, data.common, random);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    // Rows beyond the limit matter only where they draw from the generator that later tasks go on with.
    if (i >= count && task.process_docs != "gpqa") break;
    Sample sample;
    sample.doc_id = static_cast<std::int64_t>(i);
    sample.document = maker.make(std::move(rows[i]), fmt::format("{}: document {}", task.task, i));
    if (i >= count) continue;
    const std::string system =
        system_text(task, options.system_instruction, maker.description(*sample.document.row));
    add_requests(task, options, system, sampler.shots(sample.document), sample);
    result.samples.push_back(std::move(sample));
  }
  return result;
}

}  // namespace

std::vector<TaskResult> prepare_tasks(const std::vector<TaskConfig>& tasks,
                                      const EvaluationOptions& options) {
  PythonRandom random(options.random_seed);
  std::vector<TaskResult> results;
  for (const TaskConfig& task : tasks) results.push_back(prepare_task(task, options, random));
  return results;
}

}  // namespace bise
