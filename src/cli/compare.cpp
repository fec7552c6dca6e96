#include <fmt/format.h>

#include <ctime>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/progress.h"
#include "cli/child_process.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/hub_settings.h"
#include "cli/loaded_model.h"
#include "cli/recovery.h"
#include "cli/text_request.h"
#include "cli/version.h"
#include "engine/generator.h"
#include "engine/perplexity.h"
#include "report/html.h"
#include "report/result.h"
#include "report/table.h"

namespace bise {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::vector<std::string> models, names;
  std::string text, prompt, output;
  std::int64_t prompt_tokens = 512, output_tokens = 128, window = 512, max_windows = 0, max_tokens = 64;
  bool json = false;
  DeviceFlags device;
};

std::string now_utc() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

// "DIR/" and "DIR" both end in DIR.
std::string name_of(const fs::path& folder) {
  const fs::path path = fs::absolute(folder).lexically_normal();
  return (path.has_filename() ? path : path.parent_path()).filename().string();
}

// Speed and memory, measured by a process of their own.
void add_speed(const Options& options, const std::string& model, ModelResult& result) {
  const std::string output =
      run_self({"bench", model, "--json", "--prompt-tokens", std::to_string(options.prompt_tokens),
                "--output-tokens", std::to_string(options.output_tokens), "--device", options.device.device,
                "--isa", options.device.isa, "--threads", std::to_string(options.device.threads),
                "--precision", options.device.precision, "--kv-cache-dtype", options.device.kv_cache_dtype});
  const std::string where = "output of bise bench " + model;
  const Json json = parse_json(output, where);
  result.prefill_tok_s = require_number(json, "prefill_tok_s", where);
  result.decode_tok_s = require_number(json, "decode_tok_s", where);
  result.decode_gb_s = require_number(json, "gb_s", where);
  result.bandwidth_gb_s = require_number(json, "bandwidth_gb_s", where);
  result.memory_bytes = static_cast<std::int64_t>(require_number(json, "peak_rss_mb", where) * 1e6);
}

// The most likely answer to the prompt.
std::string answer(LoadedModel& model, const Options& options) {
  GenerationRequest request;
  Json messages = Json::array();
  messages.push_back({{"role", "user"}, {"content", options.prompt}});
  request.prompt = MessageEncoder(model.tokenizer(), model.folder()).encode(messages, Json(), true);
  request.sampling.temperature = 0;
  request.sampling.max_tokens = options.max_tokens;
  request.sampling.stop_token_ids = model.eos_token_ids();
  GeneratorOptions limits;
  limits.max_num_seqs = 1;
  limits.max_model_len = static_cast<std::int64_t>(request.prompt.size()) + options.max_tokens;
  limits.kv_cache_dtype = model.cache_dtype(options.device);
  Generator generator(model.decoder(), model.runtime().pool(), limits);
  const auto results = generator.generate({&request, 1});
  return model.tokenizer().decode(results[0].token_ids);
}

// Measures every model; the first is the original.
class Comparer {
 public:
  explicit Comparer(const Options& options)
      : options_(options), runtime_(options.device), base_(options.models[0], runtime_) {
    comparison_.prompt = options.prompt;
    comparison_.prompt_tokens = options.prompt_tokens;
    comparison_.output_tokens = options.output_tokens;
    windows_.window = options.window;
    windows_.max_windows = options.max_windows;
    windows_.base_kv_cache_dtype = base_.cache_dtype(options.device);
    if (options.text.empty()) return;
    text_ids_ = base_.tokenizer().encode(read_file(options.text),
                                         {.add_special_tokens = false, .parse_special = false});
    comparison_.text = fmt::format("{} ({} windows of {} tokens)", fs::path(options.text).filename().string(),
                                   count_windows(text_ids_, windows_), options.window);
  }

  void add(std::size_t index) {
    const std::string& folder = options_.models[index];
    ModelResult result;
    result.name = options_.names[index];
    result.environment = {runtime_.description(), version_text(), now_utc(), "bise compare"};
    result.disk_bytes = static_cast<std::int64_t>(folder_bytes(folder));
    add_speed(options_, folder, result);
    if (folder == options_.models[0]) {
      add_quality(base_, result);
    } else {
      LoadedModel model(folder, runtime_);
      add_quality(model, result);
    }
    comparison_.models.push_back(std::move(result));
  }

  const Comparison& comparison() const { return comparison_; }

 private:
  void add_quality(LoadedModel& model, ModelResult& result) {
    result.scheme = main_scheme(model.loader());
    if (!options_.prompt.empty()) result.answer = answer(model, options_);
    if (text_ids_.empty()) return;
    windows_.kv_cache_dtype = model.cache_dtype(options_.device);
    if (&model == &base_) {
      result.perplexity = perplexity(model.decoder(), runtime_.pool(), text_ids_, windows_).ppl;
      return;
    }
    const LogitComparison comparison =
        compare_logits(base_.decoder(), model.decoder(), runtime_.pool(), text_ids_, windows_);
    result.perplexity = comparison.quantized.ppl;
    result.kl_divergence = comparison.mean_kl;
    result.top1_agreement = comparison.same_top;
  }

  const Options& options_;
  Runtime runtime_;
  LoadedModel base_;
  WindowOptions windows_;
  std::vector<std::int32_t> text_ids_;
  Comparison comparison_;
};

}  // namespace

int run_compare(const Arguments& arguments) {
  Options options;
  Flags flags("compare",
              "Measure several checkpoints one after the other and print size, memory, speed and loss side "
              "by side; or, "
              "given results of bise eval or lm_eval, print each quantized model's recovery of the "
              "original's scores. "
              "The first is the original that the others are compared with.");
  flags.positionals(
      "models", options.models,
      "checkpoints (folders, or owner/name of downloaded models), the original first; or result "
      "files or folders of evaluations");
  flags.option("--text", options.text, "UTF-8 text for perplexity and divergence");
  flags.option("--prompt", options.prompt, "a user's message that every model answers greedily");
  flags.option("--max-tokens", options.max_tokens, "tokens of the answer at most");
  flags.option("--prompt-tokens", options.prompt_tokens, "tokens of the prompt when speed is measured");
  flags.option("--output-tokens", options.output_tokens, "tokens decoded when speed is measured");
  flags.option("--window", options.window, "tokens of a perplexity window");
  flags.option("--max-windows", options.max_windows, "windows to use at most; 0 = all");
  flags.option("-o,--output", options.output,
               "folder for comparison.json and report.html, or the recovery's files");
  flags.flag("--json", options.json, "print one JSON object instead of the table");
  options.device.declare(flags);
  if (!flags.parse(arguments)) return 0;

  if (are_eval_results(options.models))
    return compare_eval_results(options.models, options.output, options.json);
  for (std::string& model : options.models) {
    options.names.push_back(name_of(model));
    model = model_folder(model).string();
  }

  Comparer comparer(options);
  Progress progress("comparing", "models", static_cast<std::int64_t>(options.models.size()));
  for (std::size_t i = 0; i < options.models.size(); ++i) {
    comparer.add(i);
    progress.advance(1, options.names[i]);
  }
  const Comparison& comparison = comparer.comparison();
  if (!options.output.empty()) {
    AtomicFolder folder(options.output, true);
    write_file(folder.path() / "comparison.json", json_text(to_json(comparison), 2) + "\n");
    write_file(folder.path() / "report.html", comparison_page(comparison));
    folder.commit();
  }
  if (options.json) {
    fmt::print("{}\n", json_text(to_json(comparison), 2));
    return 0;
  }
  for (const ModelResult& model : comparison.models)
    if (!model.answer.empty()) fmt::print("{}: {}\n", model.scheme, model.answer);
  fmt::print("\n{}", terminal_table(comparison_table(comparison)));
  if (!options.output.empty()) log_info("wrote {}/report.html", options.output);
  return 0;
}

int run_report(const Arguments& arguments) {
  std::string folder;
  Flags flags("report", "Write DIR/report.html, one self-contained page, from DIR/comparison.json.");
  flags.positional("dir", folder, "folder that bise compare wrote");
  if (!flags.parse(arguments)) return 0;
  const fs::path path = fs::path(folder) / "comparison.json";
  const Comparison comparison = comparison_from_json(read_json_file(path), path.string());
  write_file(fs::path(folder) / "report.html", comparison_page(comparison));
  log_info("wrote {}", (fs::path(folder) / "report.html").string());
  return 0;
}

}  // namespace bise
