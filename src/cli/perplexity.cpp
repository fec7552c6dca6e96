#include "engine/perplexity.h"

#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/clock.h"
#include "base/files.h"
#include "base/progress.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/hub_settings.h"
#include "cli/loaded_model.h"

namespace bise {
namespace {

struct Options {
  std::string model, file, base;
  std::int64_t window = 512, max_windows = 0;
  bool json = false;
  DeviceFlags device;
};

Json as_json(const Options& options, const PerplexityResult& result, const LogitComparison* comparison) {
  Json json = {{"model", options.model},
               {"file", options.file},
               {"window", options.window},
               {"windows", result.windows},
               {"ppl", result.ppl},
               {"ppl_all", result.ppl_all},
               {"window_nll_sums", result.window_nll_sums}};
  if (comparison) {
    json["base"] = options.base;
    json["base_ppl"] = comparison->base.ppl;
    json["kl_divergence"] = comparison->mean_kl;
    json["top1_agreement"] = comparison->same_top;
  }
  return json;
}

void print_text(const PerplexityResult& result, const LogitComparison* comparison) {
  fmt::print("perplexity {:.4f} over the second half of {} windows ({:.4f} over all predictions)\n",
             result.ppl, result.windows, result.ppl_all);
  if (comparison)
    fmt::print("base {:.4f}, KL divergence {:.5f} nats a token, same most likely token {:.2f} %\n",
               comparison->base.ppl, comparison->mean_kl, 100 * comparison->same_top);
}

}  // namespace

int run_perplexity(const Arguments& arguments) {
  Options options;
  Flags flags(
      "perplexity",
      "Perplexity of a text in windows from an empty context, counted as llama-perplexity does; with --base "
      "also how far the predictions are from another model's.");
  flags.model(options.model);
  flags.positional("file", options.file, "UTF-8 text");
  flags.option("--base", options.base, "checkpoint to compare with, usually the unquantized one");
  flags.option("--window", options.window, "tokens of a window");
  flags.option("--max-windows", options.max_windows, "windows to use at most; 0 = all");
  flags.flag("--json", options.json, "print one JSON object");
  options.device.declare(flags);
  if (!flags.parse(arguments)) return 0;

  Runtime runtime(options.device);
  LoadedModel model(options.model, runtime);
  const std::vector<std::int32_t> ids = model.tokenizer().encode(
      read_file(options.file), {.add_special_tokens = false, .parse_special = false});
  WindowOptions windows;
  windows.window = options.window;
  windows.max_windows = options.max_windows;
  windows.kv_cache_dtype = model.cache_dtype(options.device);
  Progress progress("perplexity", "windows", count_windows(ids, windows));
  std::int64_t shown = 0;
  windows.on_progress = [&](std::int64_t done) { progress.advance(done - std::exchange(shown, done)); };

  std::optional<LogitComparison> comparison;
  PerplexityResult result;
  if (options.base.empty()) {
    result = perplexity(model.decoder(), runtime.pool(), ids, windows);
  } else {
    LoadedModel base(model_folder(options.base), runtime);
    windows.base_kv_cache_dtype = base.cache_dtype(options.device);
    comparison = compare_logits(base.decoder(), model.decoder(), runtime.pool(), ids, windows);
    result = comparison->quantized;
  }
  const LogitComparison* compared = comparison ? &*comparison : nullptr;
  if (options.json) {
    fmt::print("{}\n", json_text(as_json(options, result, compared)));
  } else {
    print_text(result, compared);
  }
  return 0;
}

}  // namespace bise
