#include "cli/runtime.h"

#include <fmt/format.h>

#include <fstream>

#include "base/error.h"

namespace bise {
namespace {

constexpr std::int64_t kMaxThreads = 1024;

int checked_threads(std::int64_t threads) {
  if (threads < 0 || threads > kMaxThreads)
    throw Error("--threads is out of range")
        .expected(fmt::format("0 to {}", kMaxThreads))
        .got(std::to_string(threads));
  return static_cast<int>(threads);
}

std::unique_ptr<Backend> make_backend(const DeviceFlags& flags, ThreadPool& pool) {
  if (flags.device == "reference") return make_reference_backend();
  if (flags.device == "cuda") return make_cuda_backend(0);
  if (flags.device != "cpu" && flags.device != "auto")
    throw Error("unknown device").at("--device").expected("auto, cpu, cuda or reference").got(flags.device);
  return make_cpu_backend(pool, flags.isa == "auto" ? available_isas().back() : parse_isa(flags.isa));
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown processor";
}

}  // namespace

void DeviceFlags::declare(Flags& flags) {
  flags.option("--device", device, "auto, cpu, cuda or reference (plain and slow)");
  flags.option("--isa", isa, "instruction set on the CPU: auto, scalar, avx2, avx512 or amx");
  flags.option("--threads", threads, "threads; 0 = one a processor");
  flags.option("--kv-cache-dtype", kv_cache_dtype, "bfloat16, fp8 (fp8_e4m3) or float32");
}

DType DeviceFlags::cache_dtype() const {
  if (kv_cache_dtype == "bfloat16" || kv_cache_dtype == "auto") return DType::kBF16;
  if (kv_cache_dtype == "float32") return DType::kF32;
  if (kv_cache_dtype == "fp8" || kv_cache_dtype == "fp8_e4m3") return DType::kF8E4M3;
  throw Error("unknown type").at("--kv-cache-dtype").expected("bfloat16, fp8 or float32").got(kv_cache_dtype);
}

Runtime::Runtime(const DeviceFlags& flags)
    : pool_(checked_threads(flags.threads)), backend_(make_backend(flags, pool_)) {}

std::string Runtime::description() const {
  return fmt::format("{}, {} threads, {}", processor_name(), pool_.threads(), backend_->name());
}

}  // namespace bise
