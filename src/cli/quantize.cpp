#include "quantize/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/progress.h"
#include "cli/calibration.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/runtime.h"
#include "cli/version.h"
#include "report/table.h"

namespace bise {
namespace {

struct Options {
  std::string model, output, scheme, algorithm = "auto", rounding = "float32", actorder = "static";
  std::vector<std::string> ignore = Recipe().ignore;
  std::int64_t group_size = 0, block_size = 128;
  double dampening_frac = 0.01;
  CalibrationOptions calibration;
  bool json = false, force = false;
  DeviceFlags device;

  void declare(Flags& flags) {
    flags.model(model, "checkpoint folder (bf16, fp16 or fp32), or owner/name of a downloaded model");
    flags.required_option("-o,--output", output, "folder to write");
    flags.required_option("--scheme", scheme, "W4A16, W4A16_ASYM, W8A16, W8A8 (INT8), FP8_DYNAMIC or NF4");
    flags.option("--algorithm", algorithm, "gptq, rtn (round to nearest), or auto: gptq for integer schemes");
    flags.option("--group-size", group_size, "columns that share a scale; 0 = 128, or what fits the model");
    flags.option("--calibration", calibration.source, "JSONL or text file, or self: sampled from the model");
    flags.option("--num-calibration-samples", calibration.num_calibration_samples, "sequences");
    flags.option("--max-seq-length", calibration.max_seq_length, "tokens of a sequence at most");
    flags.option("--seed", calibration.seed, "seed of --calibration self");
    flags.option("--dampening-frac", dampening_frac, "GPTQ: share of the mean diagonal added to the Hessian");
    flags.option("--block-size", block_size,
                 "GPTQ on the CPU: columns between two updates of the rest (a device: 128)");
    flags.option("--actorder", actorder, "GPTQ: static (columns by falling importance) or none");
    flags.option("--ignore", ignore, "linear layers to leave alone: names, or re:PATTERN");
    flags.option("--rounding", rounding, "float32, or reference: llm-compressor's bf16 steps, bit for bit");
    flags.flag("--force", force, "replace the output folder when it exists");
    flags.flag("--json", json, "print one JSON object instead of the table");
    device.declare(flags);
  }
};

template <class Value>
Value one_of(const char* flag, const std::string& given,
             const std::vector<std::pair<std::string, Value>>& choices) {
  std::string known;
  for (const auto& [name, value] : choices) {
    if (name == given) return value;
    known += (known.empty() ? "" : ", ") + name;
  }
  throw Error("unknown value").at(flag).expected("one of " + known).got(given);
}

// The group size that fits the model; says so when it is not the usual one.
void settle_group_size(const Options& options, const ModelConfig& config, Scheme& scheme) {
  if (scheme.type != WeightType::kInt || scheme.strategy != Strategy::kGroup) {
    if (options.group_size != 0) throw Error("--group-size does not apply to {}", scheme_text(scheme));
    return;
  }
  const std::vector<std::int64_t> widths = linear_widths(config);
  if (options.group_size != 0) {
    for (const std::int64_t width : widths)
      if (options.group_size < 0 || width % options.group_size != 0)
        throw Error("the group size does not divide the width of a linear layer")
            .at("--group-size")
            .expected(fmt::format("a divisor of {}", width))
            .got(std::to_string(options.group_size));
    scheme.group_size = options.group_size;
    return;
  }
  const std::int64_t usual = scheme.group_size;
  scheme.group_size = fitting_group_size(usual, widths);
  if (scheme.group_size != usual)
    log_info("group size {} instead of {}: the model's widths ({}, {}) are not all multiples of {}",
             scheme.group_size, usual, config.hidden_size, config.intermediate_size, usual);
}

Recipe make_recipe(const Options& options, const ModelConfig& config) {
  Recipe recipe;
  recipe.scheme = parse_scheme(options.scheme);
  settle_group_size(options, config, recipe.scheme);
  const bool integer = recipe.scheme.type == WeightType::kInt;
  recipe.algorithm = one_of<Algorithm>("--algorithm", options.algorithm,
                                       {{"auto", integer ? Algorithm::kGptq : Algorithm::kRtn},
                                        {"gptq", Algorithm::kGptq},
                                        {"rtn", Algorithm::kRtn}});
  if (recipe.algorithm == Algorithm::kGptq && recipe.scheme.type == WeightType::kNf4)
    throw Error("NF4 has no scales to solve for").at("--algorithm").expected("rtn").got("gptq");
  recipe.rounding = one_of<Rounding>("--rounding", options.rounding,
                                     {{"float32", Rounding::kFloat32}, {"reference", Rounding::kReference}});
  recipe.gptq.static_activation_order =
      one_of<bool>("--actorder", options.actorder, {{"static", true}, {"weight", true}, {"none", false}});
  if (!(options.dampening_frac > 0 && options.dampening_frac < 1))
    throw Error("--dampening-frac is out of range")
        .expected("between 0 and 1")
        .got(std::to_string(options.dampening_frac));
  if (options.block_size < 1 || options.block_size > 4096)
    throw Error("--block-size is out of range").expected("1 to 4096").got(std::to_string(options.block_size));
  recipe.gptq.dampening_frac = options.dampening_frac;
  recipe.gptq.block_size = options.block_size;
  recipe.gptq.derive_codes_again = recipe.rounding == Rounding::kReference;
  recipe.ignore = options.ignore;
  return recipe;
}

Json as_json(const Options& options, const Recipe& recipe, const QuantizeSummary& summary,
             const std::string& device) {
  Json json = {{"model", options.model},
               {"output", options.output},
               {"scheme", scheme_text(recipe.scheme)},
               {"algorithm", recipe.algorithm == Algorithm::kGptq ? "gptq" : "rtn"},
               {"disk_bytes", folder_bytes(options.output)},
               {"device", device},
               {"version", version_text()},
               {"total_seconds", summary.total_seconds},
               {"prepare_seconds", summary.prepare_seconds},
               {"calibrate_seconds", summary.calibrate_seconds},
               {"factor_seconds", summary.factor_seconds},
               {"solve_seconds", summary.solve_seconds},
               {"write_seconds", summary.write_seconds},
               {"calibration_tokens", summary.calibration_tokens},
               {"modules", Json::array()}};
  if (summary.device_peak_bytes > 0) json["device_peak_bytes"] = summary.device_peak_bytes;
  for (const ModuleReport& report : summary.modules) {
    Json module = {{"module", report.module}, {"relative_error", report.relative_error}};
    if (recipe.algorithm == Algorithm::kGptq) module["loss"] = report.loss;
    if (report.round_to_nearest) module["round_to_nearest"] = true;
    json["modules"].push_back(module);
  }
  return json;
}

// One line a layer: the error of each of its modules.
void print_table(const QuantizeSummary& summary) {
  Table table{{"layer"}, {}, 1};
  for (const ModuleReport& report : summary.modules) {
    const auto layer_end = report.module.find('.', std::string("model.layers.").size());
    const std::string layer = report.module.substr(0, layer_end);
    if (table.rows.empty() || table.rows.back()[0] != layer) table.rows.push_back({layer});
    if (table.rows.size() == 1) table.header.push_back(report.module.substr(report.module.rfind('.') + 1));
    table.rows.back().push_back(fmt::format("{:.4f}", report.relative_error));
  }
  for (auto& row : table.rows) row.resize(table.header.size(), "-");
  fmt::print("relative error of the weights, |W - Q| / |W|\n{}", terminal_table(table));
}

}  // namespace

int run_quantize(const Arguments& arguments) {
  Options options;
  Flags flags(
      "quantize",
      "Write a quantized checkpoint that vLLM and transformers load: compressed-tensors, or bitsandbytes for "
      "NF4.");
  options.declare(flags);
  if (!flags.parse(arguments)) return 0;

  const ModelLoader model(options.model);
  QuantizeRequest request;
  request.output = options.output;
  request.replace_output = options.force;
  request.recipe = make_recipe(options, model.config());
  Runtime runtime(options.device);
  const bool gptq = request.recipe.algorithm == Algorithm::kGptq;
  if (gptq) request.calibration = calibration_sequences(options.model, options.calibration, runtime);

  Progress progress(fmt::format("quantizing to {} ({})", scheme_text(request.recipe.scheme),
                                gptq ? "GPTQ" : "round to nearest"),
                    "layers", model.config().num_hidden_layers);
  const QuantizeSummary summary =
      quantize_checkpoint(model, request, runtime.backend(), runtime.pool(),
                          [&](std::int64_t, std::int64_t) { progress.advance(); });
  if (options.json) {
    fmt::print("{}\n", json_text(as_json(options, request.recipe, summary, runtime.description())));
  } else {
    print_table(summary);
  }
  log_info(
      "wrote {} ({:.1f} MB) in {:.1f} s: weights {:.1f}, calibration {:.1f}, factors {:.1f}, columns {:.1f} "
      "s",
      options.output, static_cast<double>(folder_bytes(options.output)) / 1e6, summary.total_seconds,
      summary.prepare_seconds, summary.calibrate_seconds, summary.factor_seconds, summary.solve_seconds);
  return 0;
}

}  // namespace bise
