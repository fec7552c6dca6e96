// bise bench kernels: the time of each operation of a decoder layer by itself, for each scheme and number of
// rows, beside what the device allows.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/commands.h"
#include "cli/flags.h"
#include "cli/kernel_bench.h"
#include "cli/runtime.h"
#include "cli/version.h"
#include "report/table.h"

namespace bise {
namespace {

struct Options {
  LayerShape shape;
  std::vector<std::string> schemes = {"BF16", "FP8_DYNAMIC", "W4A16", "W8A8"};
  std::vector<std::string> rows = {"1", "8", "32", "64", "128", "256", "8192"};
  std::int64_t context = 1024;
  double seconds = 0.03;
  bool json = false;
  DeviceFlags device;
};

std::vector<std::int64_t> parse_rows(const std::vector<std::string>& texts) {
  std::vector<std::int64_t> rows;
  for (const std::string& text : texts) {
    if (text.empty() || text.size() > 6 || text.find_first_not_of("0123456789") != std::string::npos ||
        std::stoll(text) < 1)
      throw Error("not a number of tokens").at("--rows").expected("1 to 999999").got(text);
    rows.push_back(std::stoll(text));
    // Steps of many rows are whole prompts.
    if (rows.back() > 2048 && rows.back() % 2048 != 0)
      throw Error("not a number of tokens").at("--rows").expected("above 2048 a multiple of it").got(text);
  }
  return rows;
}

void report(const std::string& scheme, const std::vector<KernelTime>& times, double bandwidth,
            double product_rate, Json& results, Table& table) {
  for (const KernelTime& time : times) {
    const double by_bytes = time.bytes / bandwidth, by_products = time.operations / product_rate;
    const bool products = by_products > by_bytes;
    const double share = std::max(by_bytes, by_products) / time.seconds;
    const double tb_s = time.bytes / time.seconds / 1e12, tflop_s = time.operations / time.seconds / 1e12;
    results.push_back({{"operation", time.operation},
                       {"scheme", scheme},
                       {"rows", time.rows},
                       {"microseconds", time.seconds * 1e6},
                       {"tb_s", tb_s},
                       {"tflop_s", tflop_s},
                       {"limit", products ? "products" : "bytes"},
                       {"share_of_limit", share}});
    table.rows.push_back({time.operation, scheme, fmt::to_string(time.rows),
                          fmt::format("{:.1f}", time.seconds * 1e6), fmt::format("{:.2f}", tb_s),
                          fmt::format("{:.0f}", tflop_s), products ? "products" : "bytes",
                          fmt::format("{:.0f} %", 100 * share)});
  }
}

}  // namespace

int run_bench_kernels(const Arguments& arguments) {
  Options options;
  Flags flags(
      "bench kernels",
      "Time of each operation of a decoder layer by itself, with random weights. The limit is what its "
      "bytes take at the device's read bandwidth, or its products at the rate of a product of 4096 x "
      "4096 x 4096 of the scheme.");
  flags.option("--hidden-size", options.shape.hidden, "of the model; the defaults are Ministral-8B's");
  flags.option("--intermediate-size", options.shape.intermediate, "columns of down_proj");
  flags.option("--num-attention-heads", options.shape.heads, "query heads");
  flags.option("--num-key-value-heads", options.shape.kv_heads, "key and value heads");
  flags.option("--head-dim", options.shape.head_dim, "columns of a head");
  flags.option("--vocab-size", options.shape.vocabulary, "rows of lm_head");
  flags.option("--schemes", options.schemes, "BF16 or the names that quantize takes");
  flags.option("--rows", options.rows,
               "tokens of a step: up to 512 of as many sequences that decode, beyond of prompts of 2048");
  flags.option("--context", options.context, "tokens in the cache of a sequence that decodes");
  flags.option("--seconds", options.seconds, "least time of a measurement");
  flags.flag("--json", options.json, "print one JSON object");
  options.device.declare(flags);
  if (!flags.parse(arguments)) return 0;
  const std::vector<std::int64_t> rows = parse_rows(options.rows);
  if (options.context < 1 || options.context > 100'000) throw Error("--context is 1 to 100000");

  Runtime runtime(options.device);
  const double bandwidth = runtime.backend().read_bandwidth(std::int64_t{1} << 30) * 1e9;
  Json json = {{"device", runtime.description()},
               {"commit", version_text()},
               {"bandwidth_gb_s", bandwidth / 1e9},
               {"product_tflop_s", Json::object()},
               {"results", Json::array()}};
  Table table{.header = {"operation", "scheme", "rows", "us", "TB/s", "TFLOP/s", "limit", "of it"},
              .rows = {},
              .first_number_column = 2};
  KernelBench bench(runtime.backend(), options.shape, options.context, options.seconds);
  const double plain_rate = bench.product_rate({});
  json["product_tflop_s"]["BF16"] = plain_rate / 1e12;
  for (const std::string& name : options.schemes) {
    const Scheme scheme = name == "BF16" ? Scheme{} : parse_scheme(name);
    // Weights alone that are short are expanded: the products are bf16's.
    const double rate = scheme.input == InputType::kNone ? plain_rate : bench.product_rate(scheme);
    json["product_tflop_s"][name] = rate / 1e12;
    std::vector<KernelTime> times;
    bench.layer(scheme, rows, times);
    report(name, times, bandwidth, rate, json["results"], table);
  }
  std::vector<KernelTime> times;
  bench.head(rows, times);
  report("BF16", times, bandwidth, plain_rate, json["results"], table);
  if (options.json)
    fmt::print("{}\n", json_text(json, 2));
  else
    fmt::print("{}, {}, reads {:.0f} GB/s, multiplies bf16 at {:.0f} TFLOP/s\n\n{}", runtime.description(),
               version_text(), bandwidth / 1e9, plain_rate / 1e12, terminal_table(table));
  return 0;
}

}  // namespace bise
