#include "cli/eval_options.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/json.h"

namespace bise {
namespace {

// lm_eval's short forms, and its words for what has another name here.
constexpr std::array kOtherNames = {
    std::pair{"-t", "--tasks"},
    std::pair{"-f", "--num-fewshot"},
    std::pair{"-L", "--limit"},
    std::pair{"-b", "--batch-size"},
    std::pair{"-o", "--output-path"},
    std::pair{"-s", "--log-samples"},
    std::pair{"--confirm-run-unsafe-code", "--allow-code-execution"},
};

// "--num_fewshot=5" -> "--num-fewshot=5".
std::string spelled(std::string argument) {
  if (argument.starts_with("--"))
    std::replace(
        argument.begin(),
        argument.begin() + static_cast<std::ptrdiff_t>(std::min(argument.find('='), argument.size())), '_',
        '-');
  for (const auto& [other, name] : kOtherNames)
    if (argument == other) return name;
  return argument;
}

// lm_eval takes a value after --fewshot_as_multiturn.
std::vector<std::string> spelled(const std::vector<std::string>& arguments) {
  std::vector<std::string> result;
  for (const std::string& each : arguments) {
    const std::string argument = spelled(each);
    const bool value_of_pair = !result.empty() && result.back() == "--fewshot-as-multiturn";
    const bool no = argument == "False" || argument == "false",
               yes = argument == "True" || argument == "true";
    if (value_of_pair && (no || yes)) {
      if (no) result.back() = "--no-fewshot-as-multiturn";
      continue;
    }
    if (argument == "--fewshot-as-multiturn=False" || argument == "--fewshot-as-multiturn=false") {
      result.push_back("--no-fewshot-as-multiturn");
    } else {
      result.push_back(argument.starts_with("--fewshot-as-multiturn=") ? "--fewshot-as-multiturn" : argument);
    }
  }
  return result;
}

double parse_number(const std::string& text, const std::string& flag) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= 0) || value > 1e15)
    throw Error("not a number").at(flag).expected("a number from 0").got(text);
  return value;
}

std::int64_t parse_count(const std::string& text, const std::string& flag) {
  const double value = parse_number(text, flag);
  if (value != static_cast<double>(static_cast<std::int64_t>(value)))
    throw Error("not a whole number").at(flag).got(text);
  return static_cast<std::int64_t>(value);
}

// lm_eval's list is random, numpy, torch, few-shot; one number sets all.
void parse_seeds(EvalOptions& options) {
  const auto given = split_names(options.seed);
  if (given.empty()) return;
  if (given.size() != 1 && given.size() != options.seeds.size())
    throw Error("wrong number of seeds").at("--seed").expected("1 or 4").got(options.seed);
  for (std::size_t i = 0; i < options.seeds.size(); ++i)
    options.seeds[i] = parse_count(given.size() == 1 ? given[0] : given[i], "--seed");
}

// The first interpreter in PATH that is a program, not a script that finds one.
std::string python_in_path() {
  const char* path = std::getenv("PATH");
  const std::string folders = path ? path : "/usr/bin:/bin";
  for (std::size_t at = 0; at <= folders.size();) {
    const std::size_t end = std::min(folders.find(':', at), folders.size());
    const std::filesystem::path candidate = std::filesystem::path(folders.substr(at, end - at)) / "python3";
    std::array<char, 4> magic{};
    if (std::ifstream file(candidate, std::ios::binary); file.read(magic.data(), magic.size()))
      if (magic[0] == 0x7f && magic[1] == 'E') return candidate.string();
    at = end + 1;
  }
  throw Error("no python3 to run the answers with").expected("--python PATH");
}

void declare(Flags& flags, EvalOptions& options) {
  flags.optional_model(options.model, "checkpoint folder, or owner/name of a downloaded model");
  flags.option("--tasks", options.tasks, "tasks, groups or patterns (mmlu_*), with commas between them");
  flags.flag("--list-tasks", options.list_tasks, "print the names of all tasks and groups");
  flags.option("--data-dir", options.data_dir, "folder with a folder for each data set");
  flags.option("--include-path", options.include_path,
               "folder with your own tasks: YAML with lm_eval's keys");
  flags.group("Prompts");
  flags.option("--num-fewshot", options.num_fewshot,
               "examples before each question, instead of the task's own where that is not 0");
  flags.option("--limit", options.limit, "documents of each task; below 1 a share of them");
  flags.option("--system-instruction", options.system_instruction, "text before every prompt");
  flags.flag("--apply-chat-template", options.chat, "prompts are conversations in the checkpoint's template");
  flags.flag_pair("--fewshot-as-multiturn", options.multiturn,
                  "behind a chat template: examples are turns of their own");
  flags.option(
      "--seed", options.seed,
      "seeds of Python's generator, numpy, torch and the examples' draw; one number sets all (default: "
      "0,1234,1234,1234)");
  flags.group("Answers");
  flags.option("--gen-kwargs", options.gen_kwargs, "put over the tasks' own: key=value,... or a JSON object");
  flags.option("--batch-size", options.batch_size, "answers generated at the same time, or auto");
  flags.option("--max-length", options.max_length,
               "tokens of prompt and answer; 0 = the model's limit, 2048 for a server");
  flags.flag("--allow-code-execution", options.allow_code,
             "run the programs that the model writes for code tasks, each confined to itself");
  flags.option("--python", options.python, "the interpreter that runs them (default: python3 in PATH)");
  flags.group("Results");
  flags.option("--output-path", options.output_path, "folder, or name ending in .json, for the result file");
  flags.flag("--log-samples", options.log_samples, "write every sample beside the result file");
  flags.flag_pair("--resume", options.resume,
                  "with --output-path: go on with the answers of an interrupted run");
  flags.option("--bootstrap-iters", options.bootstrap_iters,
               "draws for errors of perplexities and medians; 0 = no errors at all");
  flags.flag("--json", options.json, "print the result file instead of the table");
  flags.group("A server instead of a checkpoint");
  flags.option("--base-url", options.base_url,
               "an OpenAI-compatible server: http://HOST:PORT[/v1/completions]");
  flags.option("--served-model", options.served_model, "its name for the model (default: its first)");
  flags.option("--tokenizer", options.tokenizer,
               "checkpoint folder with the tokenizer (default: the server's /tokenize)");
  flags.option("--num-concurrent", options.num_concurrent, "requests in flight");
  flags.option("--max-retries", options.max_retries, "attempts after the first");
  flags.option("--timeout", options.timeout, "seconds for one request");
  flags.group("Device");
  options.device.declare(flags);
}

void check_options(const EvalOptions& options) {
  const bool server = !options.base_url.empty();
  if (options.tasks.empty() || (options.model.empty() && !server))
    throw Error("nothing to evaluate").expected("a checkpoint folder or --base-url, and --tasks");
  if (server && !options.model.empty())
    throw Error("a checkpoint and a server are given").expected("one of MODEL and --base-url");
  if (options.log_samples && options.output_path.empty())
    throw Error("--log-samples needs a place to write").expected("--output-path");
  if (options.chat && server && options.tokenizer.empty())
    throw Error("--apply-chat-template needs the server's template").expected("--tokenizer FOLDER");
  options.device.cache_dtype();  // throws for unknown names
  if (options.num_concurrent < 1 || options.num_concurrent > 1024)
    throw Error("out of range").at("--num-concurrent").expected("1 to 1024");
  if (options.max_length < 0 || options.max_retries < 0 || options.bootstrap_iters < 0 ||
      !(options.timeout > 0))
    throw Error("--max-length, --max-retries, --bootstrap-iters and --timeout are not negative");
  if (options.batch_size != "auto" && !options.batch_size.starts_with("auto:") &&
      parse_count(options.batch_size, "--batch-size") < 1)
    throw Error("out of range")
        .at("--batch-size")
        .expected("a number from 1, or auto")
        .got(options.batch_size);
}

}  // namespace

std::vector<std::string> split_names(const std::string& text) {
  std::vector<std::string> names;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find_first_of(", ", at), text.size());
    if (end > at) names.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return names;
}

Json parse_gen_kwargs(const std::string& text) {
  if (text.starts_with('{')) {
    Json object = parse_json(text, "--gen-kwargs");
    if (!object.is_object()) throw Error("not a JSON object").at("--gen-kwargs");
    return object;
  }
  Json result = Json::object();
  for (const std::string& pair : split_names(text)) {
    const std::size_t equals = pair.find('=');
    if (equals == std::string::npos) throw Error("not key=value").at("--gen-kwargs").got(pair);
    const std::string value = pair.substr(equals + 1);
    const Json parsed = Json::parse(value, nullptr, false);
    result[pair.substr(0, equals)] = parsed.is_discarded() ? Json(value) : parsed;
  }
  for (auto& [key, value] : result.items())
    if (value == "True" || value == "False") value = value == "True";
  return result;
}

bool parse_eval_options(const std::vector<std::string>& arguments, EvalOptions& options) {
  Flags flags(
      "eval",
      "Scores of a model on lm-evaluation-harness's tasks: the same prompts, metrics and result files.");
  declare(flags, options);
  if (!flags.parse(spelled(arguments))) return false;
  if (options.list_tasks) return true;
  check_options(options);
  parse_seeds(options);
  options.typed_model = flags.typed_model();
  return true;
}

EvaluationOptions evaluation_options(const EvalOptions& options) {
  EvaluationOptions result;
  result.data_dir = options.data_dir;
  if (!options.num_fewshot.empty()) result.num_fewshot = parse_count(options.num_fewshot, "--num-fewshot");
  if (!options.limit.empty()) result.limit = parse_number(options.limit, "--limit");
  result.system_instruction = options.system_instruction;
  result.random_seed = static_cast<std::uint64_t>(options.seeds[0]);
  result.fewshot_seed = static_cast<std::uint64_t>(options.seeds[3]);
  result.bootstrap_draws = options.bootstrap_iters;
  if (!options.gen_kwargs.empty())
    result.generation_kwargs = std::make_shared<Json>(parse_gen_kwargs(options.gen_kwargs));
  if (options.chat)
    result.chat_template = std::make_shared<ChatTemplate>(
        ChatTemplate::load(options.tokenizer.empty() ? options.model : options.tokenizer));
  result.fewshot_as_multiturn = options.multiturn;
  if (options.allow_code)
    result.sandbox = std::make_shared<Sandbox>(options.python.empty() ? python_in_path() : options.python);
  return result;
}

std::int64_t sequences_at_once(const EvalOptions& options, std::int64_t token_bytes, std::int64_t max_length,
                               const MemoryInfo& memory) {
  if (!options.batch_size.starts_with("auto")) return parse_count(options.batch_size, "--batch-size");
  constexpr std::int64_t kFewest = 4, kMost = 32;
  const std::int64_t sequence = std::max<std::int64_t>(1, token_bytes * max_length);
  return std::clamp(memory.free / 4 / sequence, kFewest, kMost);
}

}  // namespace bise
