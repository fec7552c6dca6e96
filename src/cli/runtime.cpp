#include "cli/runtime.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>

#include "base/error.h"
#include "base/log.h"

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

// Null, and a line that says why, where there is no GPU to use.
std::unique_ptr<Backend> try_cuda(const DeviceFlags& flags) {
  const bool asked_for = flags.device == "cuda";
  if (!asked_for && !built_with_cuda()) return nullptr;
  try {
    return make_cuda_backend(0, flags.float32());
  } catch (const Error& error) {
    if (asked_for)
      log_warning("computing on the CPU: {}", error.what());
    else
      log_debug("computing on the CPU: {}", error.what());
    return nullptr;
  }
}

std::unique_ptr<Backend> make_backend(const DeviceFlags& flags, ThreadPool& pool) {
  if (flags.device == "reference") return make_reference_backend();
  if (flags.device == "cuda" || flags.device == "auto")
    if (auto cuda = try_cuda(flags)) return cuda;
  if (flags.device != "cuda" && flags.device != "cpu" && flags.device != "auto")
    throw Error("unknown device").at("--device").expected("auto, cpu, cuda or reference").got(flags.device);
  const Isa isa = flags.isa == "auto" ? available_isas().back() : parse_isa(flags.isa);
  return make_cpu_backend(pool, isa, flags.float32());
}

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "unknown processor";
}

}  // namespace

void DeviceFlags::declare(Flags& flags) {
  flags.option("--device", device,
               "auto (cuda where there is a GPU), cpu, cuda or reference (plain and slow)");
  flags.option("--isa", isa, "instruction set on the CPU: auto, scalar, avx2, avx512 or amx");
  flags.option("--threads", threads, "threads; 0 = one a processor");
  flags.option(
      "--precision", precision,
      "serving, or float32: inputs of linear layers and the KV cache keep float32 (on AMX at twice the work; "
      "on CUDA the cache and the residual only)");
  flags.option("--kv-cache-dtype", kv_cache_dtype,
               "auto (as --precision and the checkpoint say), bfloat16, fp8 (fp8_e4m3) or float32");
}

bool DeviceFlags::float32() const {
  if (precision != "float32" && precision != "serving")
    throw Error("unknown precision").at("--precision").expected("serving or float32").got(precision);
  return precision == "float32";
}

DType DeviceFlags::cache_dtype(KvCacheScheme declared) const {
  if (kv_cache_dtype == "auto") {
    if (float32()) return DType::kF32;
    return declared == KvCacheScheme::kFp8Tensor ? DType::kF8E4M3 : DType::kBF16;
  }
  if (kv_cache_dtype == "bfloat16") return DType::kBF16;
  if (kv_cache_dtype == "float32") return DType::kF32;
  if (kv_cache_dtype == "fp8" || kv_cache_dtype == "fp8_e4m3") return DType::kF8E4M3;
  throw Error("unknown type")
      .at("--kv-cache-dtype")
      .expected("auto, bfloat16, fp8 or float32")
      .got(kv_cache_dtype);
}

Runtime::Runtime(const DeviceFlags& flags)
    : pool_(checked_threads(flags.threads)), backend_(make_backend(flags, pool_)) {}

DecoderLimits Runtime::limits(DecoderLimits least) const {
  if (backend_->memory().host) return least;
  // A step of many tokens keeps a device busy; one of decoding draws for all sequences at once.
  least.max_tokens = std::max<std::int64_t>(least.max_tokens, 8192);
  least.max_logit_rows = std::max<std::int64_t>(least.max_logit_rows, 512);
  return least;
}

std::string Runtime::description() const {
  return fmt::format("{}, {} threads, {}", processor_name(), pool_.threads(), backend_->name());
}

}  // namespace bise
