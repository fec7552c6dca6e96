#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/digest.h"
#include "base/error.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/eval_options.h"
#include "cli/loaded_model.h"
#include "cli/version.h"
#include "eval/local_model.h"
#include "eval/results.h"
#include "eval/server_model.h"

namespace bise {
namespace {

namespace fs = std::filesystem;

// Names the files of a checkpoint as they are now.
std::string files_text(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file())
      files.push_back(fmt::format("{} {} {}", entry.path().filename().string(), entry.file_size(),
                                  entry.last_write_time().time_since_epoch().count()));
  std::ranges::sort(files);
  return fmt::format("{} {}", fs::weakly_canonical(folder).string(), fmt::join(files, " "));
}

// The answers so far, in the folder of the results. `run`: what they depend on beside the requests.
std::unique_ptr<AnswerJournal> open_journal(const EvalOptions& options, const std::string& model_name,
                                            const std::string& run) {
  if (options.output_path.empty() || !options.resume) return nullptr;
  const fs::path file = results_folder(options.output_path, model_name) /
                        fmt::format("answers_{}.jsonl", sha256_hex(run).substr(0, 12));
  auto journal = std::make_unique<AnswerJournal>(file, run);
  if (journal->size() > 0)
    log_info("going on with {} answers of an interrupted run ({})", journal->size(), file.string());
  return journal;
}

void answer_by_checkpoint(const EvalOptions& options, Evaluation& evaluation,
                          std::unique_ptr<AnswerJournal>& journal) {
  Runtime runtime(options.device);
  LoadedModel loaded(options.model, runtime);
  const ModelConfig& config = loaded.config();
  LocalModelOptions limits;
  limits.max_length = options.max_length > 0 ? options.max_length : config.max_position_embeddings;
  limits.kv_cache_dtype = loaded.cache_dtype(options.device);
  limits.eos_token_ids = loaded.eos_token_ids();
  const auto token_bytes = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim *
                           static_cast<std::int64_t>(dtype_size(limits.kv_cache_dtype));
  constexpr std::int64_t kUsualLength = 2048;  // few prompts and answers are longer
  limits.max_num_seqs = sequences_at_once(options, token_bytes, std::min(limits.max_length, kUsualLength),
                                          runtime.backend().memory());
  RunDescription& run = evaluation.run;
  run.model = "bise";
  run.model_name = options.typed_model;
  run.device = runtime.backend().name();
  run.max_length = limits.max_length;
  run.model_args = std::make_shared<Json>(Json{{"pretrained", options.typed_model},
                                               {"precision", options.device.precision},
                                               {"device", run.device},
                                               {"kv_cache_dtype", dtype_name(limits.kv_cache_dtype)},
                                               {"max_length", limits.max_length}});
  journal = open_journal(options, run.model_name,
                         fmt::format("{} {} {} {}", version_text(), json_text(*run.model_args),
                                     files_text(options.model), run.seeds[3]));
  LocalModel model(loaded.decoder(), runtime.pool(), loaded.tokenizer(), limits);
  answer_tasks(evaluation.tasks, evaluation.options, model, journal.get());
  run.scored_tokens = model.scorer().given_tokens();
  run.computed_tokens = model.scorer().computed_tokens();
  if (run.scored_tokens > 0)
    log_info("scored {} tokens, {:.1f} % of them shared with another request", run.scored_tokens,
             100.0 * static_cast<double>(run.scored_tokens - run.computed_tokens) /
                 static_cast<double>(run.scored_tokens));
}

void answer_by_server(const EvalOptions& options, Evaluation& evaluation,
                      std::unique_ptr<AnswerJournal>& journal) {
  std::unique_ptr<Tokenizer> tokenizer;
  if (!options.tokenizer.empty()) tokenizer = Tokenizer::load(options.tokenizer);
  ServerModelOptions server;
  server.base_url = options.base_url;
  server.model = options.served_model;
  if (const char* key = std::getenv("OPENAI_API_KEY")) server.api_key = key;
  server.tokenizer = tokenizer.get();
  if (options.max_length > 0) server.max_length = options.max_length;
  server.num_concurrent = options.num_concurrent;
  server.max_retries = options.max_retries;
  server.timeout = options.timeout;
  server.seed = options.seeds[3];
  const std::int64_t max_length = server.max_length;
  ServerModel model(std::move(server));
  RunDescription& run = evaluation.run;
  run.model = "local-completions";
  run.model_name = model.model();
  run.max_length = max_length;
  run.model_args = std::make_shared<Json>(Json{{"model", model.model()},
                                               {"base_url", options.base_url},
                                               {"max_length", max_length},
                                               {"num_concurrent", options.num_concurrent}});
  journal = open_journal(options, run.model_name, version_text() + json_text(*run.model_args));
  answer_tasks(evaluation.tasks, evaluation.options, model, journal.get());
}

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

int run_eval(const Arguments& arguments) {
  EvalOptions options;
  if (!parse_eval_options(arguments, options)) return 0;
  TaskRegistry registry;
  if (!options.include_path.empty()) registry.add_folder(options.include_path);
  if (options.list_tasks) {
    for (const std::string& name : registry.names()) fmt::print("{}\n", name);
    return 0;
  }
  Evaluation evaluation;
  evaluation.run.start_time = unix_time();
  const Stopwatch watch;
  evaluation.options = evaluation_options(options);
  evaluation.run.seeds = options.seeds;
  evaluation.run.version = version_text();
  evaluation.run.batch_size = options.batch_size;
  TaskSelection selection = registry.select(split_names(options.tasks));
  evaluation.groups = std::move(selection.groups);
  evaluation.tasks = prepare_tasks(selection.tasks, evaluation.options);
  std::unique_ptr<AnswerJournal> journal;
  if (options.base_url.empty()) {
    answer_by_checkpoint(options, evaluation, journal);
  } else {
    answer_by_server(options, evaluation, journal);
  }
  evaluation.run.seconds = watch.seconds();
  if (!options.output_path.empty())
    log_info("wrote {}", write_results(options.output_path, evaluation, options.log_samples).string());
  if (journal) journal->remove();
  fmt::print("{}", options.json ? json_text(results_json(evaluation), 2) + "\n" : results_table(evaluation));
  return 0;
}

}  // namespace bise
