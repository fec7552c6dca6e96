// The device a command computes on, chosen by flags, and the flags that every such command shares.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "backend/backend.h"
#include "base/thread_pool.h"
#include "cli/flags.h"
#include "formats/quantization_config.h"
#include "model/decoder.h"

namespace bise {

struct DeviceFlags {
  std::string device = "auto";          // auto, cpu, cuda, reference
  std::string isa = "auto";             // auto, scalar, avx2, avx512, amx
  std::string precision = "serving";    // or float32
  std::string kv_cache_dtype = "auto";  // auto, bfloat16, fp8, fp8_e4m3, float32
  std::int64_t threads = 0;

  void declare(Flags& flags);
  // Both throw Error for an unknown name. `declared`: what the checkpoint says of its cache; followed by
  // "auto", as in vLLM, unless the precision is float32.
  bool float32() const;
  DType cache_dtype(KvCacheScheme declared = KvCacheScheme::kNone) const;
};

// Threads and backend; lives as long as the command.
class Runtime {
 public:
  // Throws Error for an unknown device and for an instruction set that this machine lacks. Without a GPU that
  // can be used, "cuda" computes on the CPU and says so.
  explicit Runtime(const DeviceFlags& flags);

  ThreadPool& pool() { return pool_; }
  Backend& backend() { return *backend_; }
  bool on_device() const { return !backend_->memory().host; }
  // `least`, or more where the device gains from larger steps.
  DecoderLimits limits(DecoderLimits least = {}) const;
  // "Intel(R) Xeon(R) Processor, 2 threads, cpu amx"
  std::string description() const;

 private:
  ThreadPool pool_;
  std::unique_ptr<Backend> backend_;
};

}  // namespace bise
