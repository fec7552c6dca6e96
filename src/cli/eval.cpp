#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/loaded_model.h"
#include "cli/version.h"
#include "eval/builtin_tasks.h"
#include "eval/local_model.h"
#include "eval/results.h"
#include "eval/task_files.h"

namespace bise {
namespace {

struct Options {
  std::string model, tasks, include_path, data_dir = "data", output_path;
  std::string limit, num_fewshot, seed, system_instruction, gen_kwargs;
  std::int64_t max_length = 0, max_num_seqs = 16;
  bool chat = false, multiturn = true, log_samples = false, list_tasks = false, json = false;
  DeviceFlags device;
};

std::vector<std::string> split_names(const std::string& text) {
  std::vector<std::string> names;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find_first_of(", ", at), text.size());
    if (end > at) names.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return names;
}

double parse_number(const std::string& text, const std::string& flag) {
  std::size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != text.size() || !(value >= 0))
    throw Error("not a number").at(flag).expected("a number from 0").got(text);
  return value;
}

// "temperature=0.7,top_p=0.9" or a JSON object.
Json parse_gen_kwargs(const std::string& text) {
  if (text.front() == '{') return parse_json(text, "--gen-kwargs");
  Json result = Json::object();
  for (const std::string& pair : split_names(text)) {
    const std::size_t equals = pair.find('=');
    if (equals == std::string::npos) throw Error("not key=value").at("--gen-kwargs").got(pair);
    const std::string value = pair.substr(equals + 1);
    const Json parsed = Json::parse(value, nullptr, false);
    result[pair.substr(0, equals)] = parsed.is_discarded() ? Json(value) : parsed;
  }
  for (const auto& [key, value] : result.items())
    if (value == "True" || value == "False") result[key] = value == "True";
  return result;
}

EvaluationOptions evaluation_options(const Options& options) {
  EvaluationOptions result;
  result.data_dir = options.data_dir;
  if (!options.num_fewshot.empty())
    result.num_fewshot = static_cast<std::int64_t>(parse_number(options.num_fewshot, "--num-fewshot"));
  if (!options.limit.empty()) result.limit = parse_number(options.limit, "--limit");
  result.system_instruction = options.system_instruction;
  // lm_eval's list is random, numpy, torch, few-shot; one number sets all.
  if (const auto seeds = split_names(options.seed); !seeds.empty()) {
    if (seeds.size() != 1 && seeds.size() != 4)
      throw Error("wrong number of seeds").at("--seed").expected("1 or 4").got(options.seed);
    result.fewshot_seed = static_cast<std::uint64_t>(parse_number(seeds.back(), "--seed"));
  }
  if (!options.gen_kwargs.empty())
    result.generation_kwargs = std::make_shared<Json>(parse_gen_kwargs(options.gen_kwargs));
  if (options.chat) result.chat_template = std::make_shared<ChatTemplate>(ChatTemplate::load(options.model));
  result.fewshot_as_multiturn = options.multiturn;
  return result;
}

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void declare(Flags& flags, Options& options) {
  flags.optional_positional("model", options.model, "checkpoint folder");
  flags.option("--tasks", options.tasks, "tasks or groups, with commas between them");
  flags.flag("--list-tasks", options.list_tasks, "print the names of all tasks and groups");
  flags.option("--data-dir", options.data_dir, "folder with a folder for each data set");
  flags.option("--include-path", options.include_path,
               "folder with your own tasks: YAML with lm_eval's keys");
  flags.option("--num-fewshot", options.num_fewshot,
               "examples before each question, instead of the task's own");
  flags.option("--limit", options.limit, "documents of each task; below 1 a share of them");
  flags.option("--system-instruction", options.system_instruction, "text before every prompt");
  flags.flag("--apply-chat-template", options.chat, "prompts are conversations in the checkpoint's template");
  flags.flag_pair("--fewshot-as-multiturn", options.multiturn,
                  "behind a chat template: examples are turns of their own");
  flags.option("--gen-kwargs", options.gen_kwargs, "put over the tasks' own: key=value,... or a JSON object");
  flags.option("--seed", options.seed, "seed of the examples' draw (lm_eval's list of four is taken too)");
  flags.option("--output-path", options.output_path, "folder, or name ending in .json, for the result file");
  flags.flag("--log-samples", options.log_samples, "write every sample beside the result file");
  flags.option("--max-length", options.max_length, "tokens of prompt and answer; 0 = the model's limit");
  flags.option("--max-num-seqs", options.max_num_seqs, "answers generated at the same time");
  flags.flag("--json", options.json, "print the result file instead of the table");
  options.device.declare(flags);
}

}  // namespace

int run_eval(const Arguments& arguments) {
  Options options;
  Flags flags(
      "eval",
      "Scores of a model on lm-evaluation-harness's tasks: the same prompts, metrics and result files.");
  declare(flags, options);
  if (!flags.parse(arguments)) return 0;
  if (options.list_tasks) {
    for (const std::string& name : builtin_task_names()) fmt::print("{}\n", name);
    return 0;
  }
  if (options.model.empty() || options.tasks.empty())
    throw Error("nothing to evaluate").expected("a checkpoint folder and --tasks");
  if (options.log_samples && options.output_path.empty())
    throw Error("--log-samples needs a place to write").expected("--output-path");

  RunDescription run;
  run.start_time = unix_time();
  const Stopwatch watch;
  const EvaluationOptions evaluation = evaluation_options(options);
  std::vector<TaskConfig> own;
  if (!options.include_path.empty()) own = load_task_files(options.include_path);
  std::vector<TaskResult> tasks;
  for (const TaskConfig& task : find_tasks(split_names(options.tasks), options.data_dir, own))
    tasks.push_back(prepare_task(task, evaluation));

  Runtime runtime(options.device);
  LoadedModel loaded(options.model, runtime);
  LocalModelOptions limits;
  limits.max_length = options.max_length > 0 ? options.max_length : loaded.config().max_position_embeddings;
  limits.max_num_seqs = options.max_num_seqs;
  limits.kv_cache_dtype = options.device.cache_dtype();
  limits.eos_token_ids = loaded.eos_token_ids();
  LocalModel model(loaded.decoder(), runtime.pool(), loaded.tokenizer(), limits);
  answer_tasks(tasks, evaluation, model);

  run.model = options.model;
  run.version = version_text();
  run.max_length = limits.max_length;
  run.seconds = watch.seconds();
  run.limit = evaluation.limit;
  run.fewshot_seed = evaluation.fewshot_seed;
  run.system_instruction = evaluation.system_instruction;
  run.generation_kwargs = evaluation.generation_kwargs;
  if (!options.output_path.empty()) {
    const auto path = write_results(options.output_path, tasks, run, options.log_samples);
    log_info("wrote {}", path.string());
  }
  if (const ContinuationScorer& scorer = model.scorer(); scorer.given_tokens() > 0)
    log_info("scored {} tokens, {:.1f} % of them shared with another request", scorer.given_tokens(),
             100.0 * static_cast<double>(scorer.given_tokens() - scorer.computed_tokens()) /
                 static_cast<double>(scorer.given_tokens()));
  fmt::print("{}", options.json ? json_text(results_json(tasks, run), 2) + "\n" : results_table(tasks));
  return 0;
}

}  // namespace bise
