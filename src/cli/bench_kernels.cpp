// bise bench kernels: the time of each operation of a decoder layer by itself, for each scheme and number of
// rows, beside what the device's memory allows.
#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "base/clock.h"
#include "base/error.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/random_weights.h"
#include "cli/runtime.h"
#include "cli/version.h"
#include "report/table.h"

namespace bise {
namespace {

struct LinearShape {
  std::string name;
  std::int64_t rows, columns;
  bool gated = false;
};

struct Options {
  std::int64_t hidden = 4096, intermediate = 12288, heads = 32, kv_heads = 8, head_dim = 128;
  std::vector<std::string> schemes = {"BF16", "FP8_DYNAMIC", "W4A16", "W8A8"};
  std::vector<std::string> rows = {"1", "8", "32", "64", "128", "256", "2048"};
  double seconds = 0.05;
  bool json = false;
  DeviceFlags device;
};

std::vector<LinearShape> layer_shapes(const Options& options) {
  return {{"qkv_proj", (options.heads + 2 * options.kv_heads) * options.head_dim, options.hidden},
          {"o_proj", options.hidden, options.heads * options.head_dim},
          {"gate_up_proj", 2 * options.intermediate, options.hidden, true},
          {"down_proj", options.hidden, options.intermediate}};
}

// Seconds of one call: many are started between two waits for the device.
double seconds_of(Backend& backend, double at_least, const std::function<void(std::int64_t)>& call) {
  for (std::int64_t i = 0; i < 3; ++i) call(i);
  backend.synchronize();
  for (std::int64_t calls = 4;; calls *= 2) {
    const Stopwatch watch;
    for (std::int64_t i = 0; i < calls; ++i) call(i);
    backend.synchronize();
    const double seconds = watch.seconds();
    if (seconds >= at_least) return seconds / static_cast<double>(calls);
  }
}

class LinearBench {
 public:
  LinearBench(Backend& backend, const Options& options, double bandwidth)
      : backend_(backend), options_(options), bandwidth_(bandwidth) {}

  void run(const std::string& scheme_name, const LinearShape& shape, Json& results, Table& table) {
    const Scheme scheme = scheme_name == "BF16" ? Scheme{} : parse_scheme(scheme_name);
    const StoredLinear stored = random_linear(scheme, shape.rows, shape.columns, 1);
    const std::int64_t bytes = stored_bytes(stored);
    // As many copies as no cache holds: decoding finds each weight in memory.
    constexpr std::int64_t kWorkingSet = std::int64_t{512} << 20;
    std::vector<std::unique_ptr<LinearWeight>> copies;
    for (std::int64_t i = 0; i < std::max<std::int64_t>(2, kWorkingSet / bytes); ++i) {
      copies.push_back(backend_.prepare_linear({stored}));
    }
    for (const std::string& text : options_.rows) {
      const std::int64_t rows = std::stoll(text);
      const auto in = encoded_rows(rows, shape.columns, encoding_for(*copies.front()));
      const auto out = backend_.make_matrix(rows, shape.rows);
      const auto gated = backend_.make_linear_input(rows, shape.gated ? shape.rows / 2 : 1);
      const double seconds = seconds_of(backend_, options_.seconds, [&](std::int64_t i) {
        const LinearWeight& weight = *copies[static_cast<std::size_t>(i) % copies.size()];
        if (shape.gated)
          backend_.gated_linear(*in, weight, encoding_for(weight), *gated);
        else
          backend_.linear(*in, weight, *out);
      });
      const double gb_s = static_cast<double>(bytes) / seconds / 1e9;
      const double tflop_s = 2.0 * static_cast<double>(rows * shape.rows * shape.columns) / seconds / 1e12;
      results.push_back({{"operation", shape.name},
                         {"scheme", scheme_name},
                         {"weight", {shape.rows, shape.columns}},
                         {"rows", rows},
                         {"microseconds", seconds * 1e6},
                         {"gb_s", gb_s},
                         {"share_of_bandwidth", gb_s / bandwidth_},
                         {"tflop_s", tflop_s}});
      table.rows.push_back({shape.name, scheme_name, text, fmt::format("{:.1f}", seconds * 1e6),
                            fmt::format("{:.0f}", gb_s), fmt::format("{:.0f} %", 100 * gb_s / bandwidth_),
                            fmt::format("{:.1f}", tflop_s)});
    }
  }

 private:
  std::unique_ptr<LinearInput> encoded_rows(std::int64_t rows, std::int64_t columns, InputEncoding encoding) {
    std::mt19937 random(2);
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<std::size_t>(rows * columns)),
        ones(static_cast<std::size_t>(columns), 1);
    for (float& value : values) value = normal(random);
    auto residual = backend_.make_matrix(rows, columns);
    backend_.write(values, rows, *residual);
    const auto weight = backend_.prepare_tensor(from_floats(ones));
    auto in = backend_.make_linear_input(rows, columns);
    backend_.add_rms_norm(nullptr, *residual, *weight, 1e-5f, encoding, *in);
    return in;
  }
  static Tensor from_floats(const std::vector<float>& values) {
    return Tensor::of<float>(DType::kF32, {static_cast<std::int64_t>(values.size())}, values);
  }

  Backend& backend_;
  const Options& options_;
  double bandwidth_;
};

}  // namespace

int run_bench_kernels(const Arguments& arguments) {
  Options options;
  Flags flags("bench kernels",
              "Time of each linear layer of a decoder layer by itself, with random weights.");
  flags.option("--hidden-size", options.hidden, "of the model; the defaults are Ministral-8B's");
  flags.option("--intermediate-size", options.intermediate, "columns of down_proj");
  flags.option("--num-attention-heads", options.heads, "query heads");
  flags.option("--num-key-value-heads", options.kv_heads, "key and value heads");
  flags.option("--head-dim", options.head_dim, "columns of a head");
  flags.option("--schemes", options.schemes, "BF16 or the names that quantize takes");
  flags.option("--rows", options.rows, "tokens of a step");
  flags.option("--seconds", options.seconds, "least time of a measurement");
  flags.flag("--json", options.json, "print one JSON object");
  options.device.declare(flags);
  if (!flags.parse(arguments)) return 0;
  for (const std::string& rows : options.rows)
    if (rows.empty() || rows.size() > 6 || rows.find_first_not_of("0123456789") != std::string::npos ||
        std::stoll(rows) < 1)
      throw Error("not a number of tokens").at("--rows").expected("1 to 999999").got(rows);

  Runtime runtime(options.device);
  const double bandwidth = runtime.backend().read_bandwidth(std::int64_t{1} << 30);
  Json json = {{"device", runtime.description()},
               {"commit", version_text()},
               {"bandwidth_gb_s", bandwidth},
               {"results", Json::array()}};
  Table table{.header = {"operation", "scheme", "rows", "us", "GB/s", "of bandwidth", "TFLOP/s"},
              .rows = {},
              .first_number_column = 2};
  LinearBench bench(runtime.backend(), options, bandwidth);
  for (const std::string& scheme : options.schemes)
    for (const LinearShape& shape : layer_shapes(options)) bench.run(scheme, shape, json["results"], table);
  if (options.json)
    fmt::print("{}\n", json_text(json, 2));
  else
    fmt::print("{}, {}, reads {:.0f} GB/s\n\n{}", runtime.description(), version_text(), bandwidth,
               terminal_table(table));
  return 0;
}

}  // namespace bise
