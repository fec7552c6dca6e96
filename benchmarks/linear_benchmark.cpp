// Linear layers of SmolLM2-135M and of a 1.1B Llama: for each scheme, shape and number of rows the time, the
// bytes of weights read and the operations a second, with their share of what this machine can do at best.
//
// Every pass goes through as many copies of the weight as make 256 MiB, as decoding a whole model does, so
// that they come from memory or from a shared last-level cache larger than that, never from a core's own
// cache. The bandwidth limit is measured over the same amount.
//
//   linear_benchmark --isa=avx512 --threads=2 --benchmark_filter='W4A16/135M.qkv/1/'
#include <benchmark/benchmark.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "backend/cpu/bandwidth.h"
#include "backend/cpu/linear.h"
#include "base/error.h"
#include "machine_limits.h"
#include "tensor/float_types.h"
#include "tensor/pack.h"

namespace bise {
namespace {

constexpr std::int64_t kWorkingSet = std::int64_t{256} << 20;

struct LayerShape {
  const char* name;
  std::int64_t rows, columns;
  bool gated = false;
};
constexpr LayerShape kShapes[] = {{"135M.qkv", 960, 576},
                                  {"135M.o", 576, 576},
                                  {"135M.gate_up", 3072, 576, true},
                                  {"135M.down", 576, 1536},
                                  {"135M.head", 49152, 576},
                                  {"1.1B.qkv", 2560, 2048},
                                  {"1.1B.o", 2048, 2048},
                                  {"1.1B.gate_up", 11264, 2048, true},
                                  {"1.1B.down", 2048, 5632},
                                  {"1.1B.head", 32000, 2048}};
constexpr const char* kSchemes[] = {"BF16", "W8A8", "W4A16", "W4A16_ASYM", "W8A16", "FP8_DYNAMIC", "NF4"};
constexpr std::int64_t kRows[] = {1, 8, 32, 128, 512};

struct Machine {
  ThreadPool pool;
  Isa isa;
  double bandwidth, float_peak, integer_peak;
};

Tensor random_tensor(DType dtype, Shape shape, std::mt19937_64& random) {
  Tensor tensor = Tensor::allocate(dtype, std::move(shape));
  auto* words = reinterpret_cast<std::uint8_t*>(const_cast<std::byte*>(tensor.bytes().data()));
  for (std::size_t i = 0; i < tensor.bytes().size(); ++i)
    words[i] = static_cast<std::uint8_t>(random() >> 32);
  return tensor;
}

Tensor random_floats(DType dtype, Shape shape, float scale, std::mt19937_64& random) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> values(static_cast<std::size_t>(element_count(shape)));
  for (float& value : values) value = normal(random);
  return from_float(values, dtype, std::move(shape));
}

// A random weight as the checkpoint of `scheme` stores it. SmolLM2's 576 columns need groups of 64.
StoredLinear random_linear(Scheme scheme, const LayerShape& shape, std::mt19937_64& random) {
  const std::int64_t rows = shape.rows, columns = shape.columns;
  if (scheme.strategy == Strategy::kGroup && columns % scheme.group_size != 0) scheme.group_size = 64;
  StoredLinear linear;
  linear.scheme = scheme;
  linear.rows = rows;
  linear.columns = columns;
  const float spread = 1.0f / std::sqrt(static_cast<float>(columns));
  if (!scheme.quantized()) {
    linear.weight = random_floats(DType::kBF16, {rows, columns}, spread, random);
  } else if (scheme.type == WeightType::kNf4) {
    linear.weight = random_tensor(DType::kU8, {rows * columns / 2}, random);
    linear.absmax = random_floats(DType::kF32, {rows * columns / 64}, spread, random);
    linear.quant_map = from_float(kNf4Values, DType::kF32, {16});
  } else if (scheme.type == WeightType::kFloat) {
    linear.weight = random_floats(DType::kF8E4M3, {rows, columns}, 100.0f, random);
    linear.scale = random_floats(DType::kBF16, {rows, 1}, spread / 100, random);
  } else {
    const std::int64_t groups = scheme.strategy == Strategy::kGroup ? columns / scheme.group_size : 1;
    linear.weight = scheme.input == InputType::kInt8Token
                        ? random_tensor(DType::kI8, {rows, columns}, random)
                        : random_tensor(DType::kI32, {rows, columns * scheme.num_bits / 32}, random);
    linear.scale = random_floats(DType::kBF16, {rows, groups}, spread / 100, random);
    if (!scheme.symmetric)
      linear.zero_point = random_tensor(DType::kI32, {rows * scheme.num_bits / 32, groups}, random);
  }
  return linear;
}

// Copies of one weight, each in memory of its own.
std::vector<std::unique_ptr<LinearWeight>> copies_of(const StoredLinear& linear, Machine& machine) {
  std::vector<std::unique_ptr<LinearWeight>> copies;
  const std::int64_t count = std::max<std::int64_t>(1, kWorkingSet / stored_bytes(linear));
  for (std::int64_t i = 0; i < count; ++i) {
    StoredLinear copy = linear;
    copy.weight = Tensor::of(linear.weight.dtype(), linear.weight.shape(), linear.weight.bytes());
    std::vector<StoredLinear> parts;
    parts.push_back(std::move(copy));
    copies.push_back(prepare_cpu_linear(std::move(parts), machine.isa, &machine.pool));
  }
  return copies;
}

void run_layer(benchmark::State& state, Machine& machine, const char* scheme_name, const LayerShape& shape,
               std::int64_t rows) {
  std::mt19937_64 random(1);
  const bool quantized = std::string_view(scheme_name) != "BF16";
  const StoredLinear stored = random_linear(quantized ? parse_scheme(scheme_name) : Scheme{}, shape, random);
  const auto weights = copies_of(stored, machine);
  CpuLinearInput in(rows, shape.columns, machine.isa), gated(rows, shape.rows / 2, machine.isa);
  CpuMatrix out(rows, shape.rows);
  std::vector<float> values(static_cast<std::size_t>(shape.columns));
  std::normal_distribution<float> normal;
  in.begin(rows, encoding_for(*weights.front()));
  for (std::int64_t r = 0; r < rows; ++r) {
    for (float& value : values) value = normal(random);
    in.encode_row(r, values.data());
  }
  LinearScratch scratch(machine.pool.threads());
  std::size_t next = 0;
  for (auto _ : state) {
    const LinearWeight& weight = *weights[next++ % weights.size()];
    if (shape.gated)
      gated_linear(machine.pool, scratch, in, weight, encoding_for(weight), gated);
    else
      linear(machine.pool, scratch, in, weight, out);
  }
  const auto rate = benchmark::Counter::kIsIterationInvariantRate;
  const auto bytes = static_cast<double>(stored_bytes(stored));
  const double operations = 2.0 * static_cast<double>(rows * shape.rows * shape.columns);
  const double peak =
      stored.scheme.input == InputType::kInt8Token ? machine.integer_peak : machine.float_peak;
  state.counters["GB/s"] = {bytes / 1e9, rate};
  state.counters["%bandwidth"] = {100 * bytes / machine.bandwidth, rate};
  state.counters["GFLOP/s"] = {operations / 1e9, rate};
  if (peak > 0) state.counters["%peak"] = {100 * operations / peak, rate};
}

int run_benchmarks(int argc, char** argv) {
  // Our own flags stand first: --isa=NAME and --threads=N.
  Isa isa = available_isas().back();
  int threads = 0;
  std::vector<char*> rest{argv[0]};
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag.starts_with("--isa="))
      isa = parse_isa(flag.substr(6));
    else if (flag.starts_with("--threads="))
      threads = std::stoi(std::string(flag.substr(10)));
    else
      rest.push_back(argv[i]);
  }
  Machine machine{ThreadPool(threads), isa, 0, 0, 0};
  machine.bandwidth = 1e9 * measure_read_bandwidth(machine.pool, kWorkingSet);
  machine.float_peak = peak_operations(machine.pool, isa, false);
  machine.integer_peak = peak_operations(machine.pool, isa, true);
  for (const char* scheme : kSchemes)
    for (const LayerShape& shape : kShapes)
      for (const std::int64_t rows : kRows)
        benchmark::RegisterBenchmark(fmt::format("{}/{}/{}", scheme, shape.name, rows).c_str(),
                                     [&machine, scheme, &shape, rows](benchmark::State& state) {
                                       run_layer(state, machine, scheme, shape, rows);
                                     })
            ->UseRealTime()
            ->MinTime(0.1)
            ->Unit(benchmark::kMicrosecond);
  benchmark::AddCustomContext("isa", std::string(isa_name(isa)));
  benchmark::AddCustomContext("threads", std::to_string(machine.pool.threads()));
  benchmark::AddCustomContext("read bandwidth, 256 MiB", fmt::format("{:.1f} GB/s", machine.bandwidth / 1e9));
  benchmark::AddCustomContext("peak, float", fmt::format("{:.0f} GFLOP/s", machine.float_peak / 1e9));
  benchmark::AddCustomContext("peak, int8", fmt::format("{:.0f} GOP/s", machine.integer_peak / 1e9));
  int count = static_cast<int>(rest.size());
  benchmark::Initialize(&count, rest.data());
  if (benchmark::ReportUnrecognizedArguments(count, rest.data())) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}

}  // namespace
}  // namespace bise

int main(int argc, char** argv) {
  try {
    return bise::run_benchmarks(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
