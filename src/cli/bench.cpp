#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "base/error.h"
#include "base/files.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/loaded_model.h"
#include "cli/version.h"
#include "engine/generator.h"

namespace bise {
namespace {

struct Options {
  std::string model;
  std::int64_t prompt_tokens = 512, output_tokens = 128, repetitions = 3;
  bool json = false;
  DeviceFlags device;
};

struct Sample {
  double prefill_tok_s = 0, decode_tok_s = 0;
};

// A prompt of random tokens: speed does not depend on which. The same for every run.
GenerationRequest make_request(const Options& options, std::int64_t vocab_size) {
  std::mt19937 random(0);
  GenerationRequest request;
  for (std::int64_t i = 0; i < options.prompt_tokens; ++i)
    request.prompt.push_back(static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(vocab_size)));
  request.sampling.temperature = 0;
  // The first token comes from the prefill step.
  request.sampling.max_tokens = options.output_tokens + 1;
  return request;
}

GeneratorOptions one_sequence(const Options& options, const LoadedModel& model) {
  GeneratorOptions limits;
  limits.max_num_seqs = 1;
  limits.max_model_len = options.prompt_tokens + options.output_tokens + 1;
  limits.kv_cache_dtype = model.cache_dtype(options.device);
  limits.enable_prefix_caching = false;  // the same prompt is timed again and again
  return limits;
}

Sample measure(Generator& generator, const GenerationRequest& request) {
  const GenerationTimes before = generator.times();
  generator.generate({&request, 1});
  const GenerationTimes& after = generator.times();
  return {static_cast<double>(after.prompt_tokens - before.prompt_tokens) /
              (after.prefill_seconds - before.prefill_seconds),
          static_cast<double>(after.decode_tokens - before.decode_tokens) /
              (after.decode_seconds - before.decode_seconds)};
}

// The high-water mark of this process's resident memory. Not getrusage's: that one starts with the parent's.
double peak_rss_mb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) * 1024 / 1e6;
  throw Error("VmHWM is missing").at("/proc/self/status");
}

Json as_json(const Options& options, LoadedModel& model, const std::vector<Sample>& samples, double peak_mb,
             double bandwidth) {
  const Sample best = {std::ranges::max(samples, {}, &Sample::prefill_tok_s).prefill_tok_s,
                       std::ranges::max(samples, {}, &Sample::decode_tok_s).decode_tok_s};
  const double weights_gb = static_cast<double>(model.decode_weight_bytes()) / 1e9;
  const double gb_s = weights_gb * best.decode_tok_s;
  Json json = {{"model", options.model},
               {"scheme", main_scheme(model.loader())},
               {"device", model.runtime().description()},
               {"commit", version_text()},
               {"prompt_tokens", options.prompt_tokens},
               {"output_tokens", options.output_tokens},
               {"prefill_tok_s", best.prefill_tok_s},
               {"decode_tok_s", best.decode_tok_s},
               {"weights_gb", weights_gb},
               {"gb_s", gb_s},
               {"bandwidth_gb_s", bandwidth},
               {"share_of_bandwidth", gb_s / bandwidth},
               {"peak_rss_mb", peak_mb},
               {"disk_bytes", folder_bytes(options.model)},
               {"load_seconds", model.load_seconds()},
               {"samples", Json::array()}};
  for (const Sample& sample : samples)
    json["samples"].push_back(
        {{"prefill_tok_s", sample.prefill_tok_s}, {"decode_tok_s", sample.decode_tok_s}});
  return json;
}

void print_text(const Json& json) {
  fmt::print("{}, {}\n", json["scheme"].get<std::string>(), json["device"].get<std::string>());
  fmt::print("prefill {:.0f} tok/s ({} tokens), decode {:.1f} tok/s ({} tokens)\n",
             json["prefill_tok_s"].get<double>(), json["prompt_tokens"].get<std::int64_t>(),
             json["decode_tok_s"].get<double>(), json["output_tokens"].get<std::int64_t>());
  fmt::print(
      "decode reads {:.3f} GB of weights a token: {:.1f} GB/s, {:.0f} % of the {:.1f} GB/s that this machine "
      "reads\n",
      json["weights_gb"].get<double>(), json["gb_s"].get<double>(),
      100 * json["share_of_bandwidth"].get<double>(), json["bandwidth_gb_s"].get<double>());
  fmt::print("peak resident memory {:.1f} MB, loaded in {:.2f} s\n", json["peak_rss_mb"].get<double>(),
             json["load_seconds"].get<double>());
}

}  // namespace

int run_bench(const Arguments& arguments) {
  if (!arguments.empty() && arguments.front() == "kernels")
    return run_bench_kernels({arguments.begin() + 1, arguments.end()});
  if (std::ranges::any_of(arguments, [](const std::string& each) {
        return each.starts_with("--random-weights") || each.starts_with("--checkpoint");
      }))
    return run_bench_schemes(arguments);
  Options options;
  Flags flags(
      "bench",
      "Speed of one sequence: prefill and greedy decode, best of several repetitions. `bise bench kernels` "
      "times "
      "single operations, `bise bench --random-weights SHAPE` a shape in several schemes and batches.");
  flags.model(options.model);
  flags.option("--prompt-tokens", options.prompt_tokens, "tokens of the prompt");
  flags.option("--output-tokens", options.output_tokens, "tokens to decode after it");
  flags.option("--repetitions", options.repetitions, "measurements, after one to warm up");
  flags.flag("--json", options.json, "print one JSON object");
  options.device.declare(flags);
  if (!flags.parse(arguments)) return 0;
  for (const std::int64_t value : {options.prompt_tokens, options.output_tokens, options.repetitions})
    if (value < 1 || value > 1'000'000)
      throw Error("--prompt-tokens, --output-tokens and --repetitions are 1 to 1000000");

  Runtime runtime(options.device);
  LoadedModel model(options.model, runtime, {.max_logit_rows = 1});
  Generator generator(model.decoder(), runtime.pool(), one_sequence(options, model));
  const GenerationRequest request = make_request(options, model.config().vocab_size);
  std::vector<Sample> samples;
  measure(generator, request);
  for (std::int64_t i = 0; i < options.repetitions; ++i) samples.push_back(measure(generator, request));
  // Before the bandwidth buffer counts as resident. It is as large as what a token reads, so that both find
  // the same share of it in the caches.
  const double peak_mb = peak_rss_mb();
  const double bandwidth = runtime.backend().read_bandwidth(model.decode_weight_bytes());
  const Json json = as_json(options, model, samples, peak_mb, bandwidth);
  if (options.json) {
    fmt::print("{}\n", json_text(json, 2));
  } else {
    print_text(json);
  }
  return 0;
}

}  // namespace bise
