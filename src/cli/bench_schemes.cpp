// bise bench --random-weights SHAPE: one model shape in several schemes, each as a checkpoint that is made,
// loaded by a process of its own from the page cache, measured and removed.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "base/log.h"
#include "cli/bench_steps.h"
#include "cli/child_process.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/random_checkpoint.h"
#include "cli/runtime.h"
#include "cli/version.h"
#include "model/loader.h"
#include "report/table.h"

namespace bise {
namespace fs = std::filesystem;
namespace {

constexpr double kGiB = 1024.0 * 1024 * 1024;
// Of the numbers that vLLM was measured with.
constexpr std::int64_t kPromptTokens = 128, kLongPrompts = 16, kLongPromptTokens = 2048, kLoadPrompt = 512,
                       kLoadOutput = 256;
// Of its offline class on a GPU of 70 to 160 GiB that is no A100.
constexpr std::int64_t kDeviceTokens = 16384;

struct Options {
  std::string shape, checkpoint, values = "normal", folder = "/dev/shm", output;
  std::vector<std::string> schemes = {"BF16", "FP8_DYNAMIC", "W4A16", "W8A8"};
  std::vector<std::string> batches = {"1", "8", "32", "64", "128", "256"};
  std::int64_t requests = 1024, steps = 64, max_num_seqs = 512, max_num_batched_tokens = 0, repetitions = 20;
  double started = 0;
  bool keep = false, json = false;
  SamplingParams sampling{.temperature = 0};
  DeviceFlags device;
};

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

std::int64_t parse_batch(const std::string& text, std::int64_t most) {
  if (text.empty() || text.size() > 5 || text.find_first_not_of("0123456789") != std::string::npos ||
      std::stoll(text) < 1 || std::stoll(text) > most)
    throw Error("not a number of sequences").at("--batches").expected(fmt::format("1 to {}", most)).got(text);
  return std::stoll(text);
}

// The measurements of one checkpoint, in this process.
Json measure_checkpoint(const Options& options) {
  Runtime runtime(options.device);
  const double device_ready = unix_time();
  const ModelLoader loader(options.checkpoint);
  Backend& backend = runtime.backend();
  const std::int64_t free_before = backend.memory().free;
  const ModelWeights weights = loader.load_model(backend);
  backend.synchronize();
  const double loaded = unix_time();
  const std::int64_t weight_bytes = free_before - backend.memory().free;
  DecoderLimits limits = runtime.limits();
  if (options.max_num_batched_tokens > 0)
    limits.max_tokens = options.max_num_batched_tokens;
  else if (!backend.memory().host)
    limits.max_tokens = kDeviceTokens;
  Decoder decoder(backend, loader.config(), weights, limits);
  BenchSteps bench(decoder, runtime.pool(), options.max_num_seqs, kLoadPrompt + kLoadOutput,
                   kLongPromptTokens + 2, options.device.cache_dtype(loader.quantization().kv_cache_scheme()),
                   options.sampling);
  bench.first_token_seconds(kPromptTokens);
  const double first_token = unix_time();
  Json json = {{"device", runtime.description()},
               {"start_to_device_s", device_ready - options.started},
               {"load_s", loaded - device_ready},
               {"start_to_first_token_s", first_token - options.started},
               {"max_num_batched_tokens", limits.max_tokens},
               {"weights_gib", static_cast<double>(weight_bytes) / kGiB},
               {"checkpoint_gib", static_cast<double>(loader.checkpoint().total_bytes()) / kGiB},
               {"kv_cache_gib", static_cast<double>(bench.kv_cache_bytes()) / kGiB}};
  const SamplingParams& sampling = options.sampling;
  if (!sampling.greedy() || sampling.repetition_penalty != 1 || sampling.frequency_penalty != 0)
    json["sampling"] = {{"temperature", sampling.temperature},
                        {"top_k", sampling.top_k},
                        {"top_p", sampling.top_p},
                        {"min_p", sampling.min_p},
                        {"repetition_penalty", sampling.repetition_penalty},
                        {"frequency_penalty", sampling.frequency_penalty}};
  if (options.repetitions > 0) {
    std::vector<double> first;
    for (std::int64_t i = 0; i < options.repetitions; ++i)
      first.push_back(bench.first_token_seconds(kPromptTokens));
    json["ttft_ms"] = 1e3 * median(first);
  }
  for (const std::string& text : options.batches) {
    const std::int64_t batch = parse_batch(text, options.max_num_seqs);
    const BenchSteps::DecodeStep step = bench.decode_step(batch, kPromptTokens, options.steps);
    json["tpot_ms"][text] = 1e3 * step.seconds;
    if (backend.draws_tokens()) json["host_ms"][text] = 1e3 * step.host_seconds;
  }
  if (options.repetitions > 0) {
    std::vector<double> prefill;
    for (int i = 0; i < 4; ++i) prefill.push_back(bench.load(kLongPrompts, kLongPromptTokens, 1).seconds);
    prefill.erase(prefill.begin());  // the warm-up
    json["prefill_tok_s"] = static_cast<double>(kLongPrompts * kLongPromptTokens) / median(prefill);
  }
  if (options.requests > 0) {
    const BenchSteps::Load load = bench.load(options.requests, kLoadPrompt, kLoadOutput);
    json["requests"] = options.requests;
    json["max_num_seqs"] = options.max_num_seqs;
    json["output_tok_s"] = static_cast<double>(load.output_tokens) / load.seconds;
  }
  return json;
}

// What the driver says of the device and its clocks; empty where there is no such tool.
std::string device_state() {
  std::string text;
  if (std::FILE* pipe =
          ::popen("nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,"
                  "clocks.max.mem,power.limit --format=csv,noheader 2>/dev/null",
                  "r")) {
    char line[512];
    while (std::fgets(line, sizeof line, pipe)) text += line;
    ::pclose(pipe);
  }
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  char text[32];
  std::strftime(text, sizeof text, "%FT%TZ", std::gmtime(&now));
  return text;
}

std::vector<std::string> child_arguments(const Options& options, const fs::path& checkpoint) {
  std::vector<std::string> arguments = {"bench",
                                        "--checkpoint",
                                        checkpoint.string(),
                                        "--requests",
                                        std::to_string(options.requests),
                                        "--repetitions",
                                        std::to_string(options.repetitions),
                                        "--steps",
                                        std::to_string(options.steps),
                                        "--max-num-seqs",
                                        std::to_string(options.max_num_seqs),
                                        "--max-num-batched-tokens",
                                        std::to_string(options.max_num_batched_tokens),
                                        "--device",
                                        options.device.device,
                                        "--isa",
                                        options.device.isa,
                                        "--threads",
                                        std::to_string(options.device.threads),
                                        "--kv-cache-dtype",
                                        options.device.kv_cache_dtype};
  for (const std::string& batch : options.batches) arguments.insert(arguments.end(), {"--batches", batch});
  const SamplingParams& sampling = options.sampling;
  arguments.insert(
      arguments.end(),
      {"--temperature", fmt::to_string(sampling.temperature), "--top-k", fmt::to_string(sampling.top_k),
       "--top-p", fmt::to_string(sampling.top_p), "--min-p", fmt::to_string(sampling.min_p),
       "--repetition-penalty", fmt::to_string(sampling.repetition_penalty), "--frequency-penalty",
       fmt::to_string(sampling.frequency_penalty)});
  arguments.insert(arguments.end(), {"--started", fmt::format("{:.6f}", unix_time())});
  return arguments;
}

Json measure_scheme(const Options& options, const std::string& config, const std::string& scheme) {
  const fs::path folder =
      fs::path(options.folder) /
      fmt::format("bise-bench-{}{}", scheme, options.values == "normal" ? "" : "-" + options.values);
  const Stopwatch watch;
  if (!fs::exists(folder))
    write_random_checkpoint(config, scheme, folder, parse_random_values(options.values));
  log_info("{}: checkpoint made in {:.1f} s", scheme, watch.seconds());
  Json result;
  try {
    result = parse_json(run_self(child_arguments(options, folder)), "the measuring process");
  } catch (const Error&) {
    if (!options.keep) fs::remove_all(folder);
    throw;
  }
  if (!options.keep) fs::remove_all(folder);
  result["scheme"] = scheme;
  log_info("{}", json_text(result));
  return result;
}

std::string number(const Json& result, const char* key, const char* format) {
  return result.contains(key) ? fmt::format(fmt::runtime(format), result[key].get<double>()) : "";
}

std::string text_table(const Options& options, const Json& results) {
  Table table{.header = {""}, .rows = {}, .first_number_column = 1};
  for (const Json& result : results) table.header.push_back(result["scheme"].get<std::string>());
  const auto row = [&](const std::string& name, auto value) {
    std::vector<std::string> cells = {name};
    for (const Json& result : results) cells.push_back(value(result));
    table.rows.push_back(std::move(cells));
  };
  const auto plain = [&](const std::string& name, const char* key, const char* format) {
    row(name, [&](const Json& result) { return number(result, key, format); });
  };
  plain("process start to first token, s", "start_to_first_token_s", "{:.2f}");
  plain("of that, loading weights, s", "load_s", "{:.2f}");
  plain(fmt::format("TTFT, {}-token prompt, ms", kPromptTokens), "ttft_ms", "{:.2f}");
  for (const std::string& batch : options.batches)
    row(fmt::format("TPOT batch {}, ms", batch),
        [&](const Json& result) { return number(result["tpot_ms"], batch.c_str(), "{:.2f}"); });
  plain(fmt::format("prefill {} x {}, tok/s", kLongPrompts, kLongPromptTokens), "prefill_tok_s", "{:.0f}");
  plain(fmt::format("{} requests {}/{}, output tok/s", options.requests, kLoadPrompt, kLoadOutput),
        "output_tok_s", "{:.0f}");
  plain("weights on the device, GiB", "weights_gib", "{:.2f}");
  return terminal_table(table);
}

}  // namespace

int run_bench_schemes(const Arguments& arguments) {
  Options options;
  Flags flags(
      "bench",
      "Speed of a model shape in several schemes: start, first token, decoding in batches, prompts, a "
      "load of requests.");
  flags.option("--random-weights", options.shape,
               "ministral-8b, mixtral-8x7b or a config.json: checkpoints of that shape are made and removed");
  flags.option(
      "--random-values", options.values,
      "normal, or dummy as vLLM's --load-format dummy: nearly all FP8 weights and all integers zero");
  flags.option("--checkpoint", options.checkpoint, "measure this checkpoint folder instead, and print JSON");
  flags.option("--schemes", options.schemes, "BF16 or the names that quantize takes");
  flags.option("--batches", options.batches, "sequences that decode together");
  flags.option("--requests", options.requests, "requests of the load; 0 = leave it out");
  flags.option("--steps", options.steps, "decoding steps that are timed");
  flags.option("--repetitions", options.repetitions,
               "measurements of the first token; 0 = leave it and the long prompts out");
  flags.option("--max-num-seqs", options.max_num_seqs, "most sequences of a step");
  flags.option("--max-num-batched-tokens", options.max_num_batched_tokens,
               "most tokens of a step; 0 = 16384 on a GPU, as vLLM's offline class on an H200");
  flags.option("--temperature", options.sampling.temperature, "of every request; 0 = greedy");
  flags.option("--top-k", options.sampling.top_k, "of every request; 0 = all tokens");
  flags.option("--top-p", options.sampling.top_p, "of every request; 1 = all tokens");
  flags.option("--min-p", options.sampling.min_p, "of every request; 0 = all tokens");
  flags.option("--repetition-penalty", options.sampling.repetition_penalty, "of every request; 1 = none");
  flags.option("--frequency-penalty", options.sampling.frequency_penalty, "of every request; 0 = none");
  flags.option("--folder", options.folder, "where checkpoints are made");
  flags.flag("--keep", options.keep, "leave the checkpoints there");
  flags.option("--output", options.output, "JSON file for the results");
  flags.flag("--json", options.json, "print one JSON object");
  flags.option("--started", options.started, "Unix time at which the process was started");
  options.device.declare(flags);
  if (!flags.parse(arguments)) return 0;
  for (const std::string& batch : options.batches) parse_batch(batch, options.max_num_seqs);
  if (options.steps < 1 || options.steps > 800 || options.requests < 0 || options.requests > 1'000'000)
    throw Error("--steps is 1 to 800, --requests 0 to 1000000");
  if (options.max_num_seqs < 1 || options.max_num_batched_tokens < 0 ||
      options.max_num_batched_tokens > 1 << 22 ||
      (options.max_num_batched_tokens > 0 && options.max_num_batched_tokens < options.max_num_seqs))
    throw Error("wrong number")
        .at("--max-num-batched-tokens")
        .expected(fmt::format("0, or --max-num-seqs ({}) to {}", options.max_num_seqs, 1 << 22))
        .got(std::to_string(options.max_num_batched_tokens));
  if (!valid(options.sampling))
    throw Error(
        "--temperature is at least 0, --top-p above 0 and at most 1, --min-p 0 to 1, "
        "--repetition-penalty above 0, --frequency-penalty -2 to 2");
  if (!options.checkpoint.empty()) {
    if (options.started == 0) options.started = unix_time();
    fmt::print("{}\n", json_text(measure_checkpoint(options)));
    return 0;
  }
  const std::string config = model_shape(options.shape);
  parse_random_values(options.values);
  Json json = {{"shape", options.shape},
               {"values", options.values},
               {"commit", version_text()},
               {"date", utc_now()},
               {"results", Json::array()}};
  for (const std::string& scheme : options.schemes) {
    json["results"].push_back(measure_scheme(options, config, scheme));
    // While the device still has its clocks of the load.
    json["device_state"] = device_state();
    if (!options.output.empty()) write_file(options.output, json_text(json, 2) + "\n");
  }
  fmt::print("{}\n", options.json ? json_text(json, 2) : text_table(options, json["results"]));
  return 0;
}

}  // namespace bise
