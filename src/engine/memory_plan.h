// How large the KV cache can be: vLLM's sizing (spec/serving.md section 3.3) for device memory and for the
// host's alike, and the lines it prints. plan_memory() is a pure function of what was measured.
//
// The host's memory is shared with other programs and read lazily: the CPU backend maps the cache without
// touching it, so blocks that no sequence ever used cost nothing, however many are planned. Without
// --gpu-memory-utilization a device is planned as vLLM does (0.92 of the total), the host with half of what
// is free at the start.
//
// The order of a start: at_start = backend.memory(); check_memory_at_start(); load the weights, make the
// decoder; profile_run(); plan_memory(); make the runner.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "model/decoder.h"

namespace bise {

// Names and meanings are those of the flags.
struct MemoryOptions {
  std::optional<double> gpu_memory_utilization = {};  // of the total, (0, 1]
  std::int64_t kv_cache_memory_bytes = 0;             // 0: what the plan finds
  std::int64_t num_gpu_blocks_override = 0;           // 0: what the plan finds
  std::int64_t max_model_len = 0;                     // <= 0: the longest that fits, up to longest_context
  std::int64_t longest_context = 0;                   // that the model can
  std::int64_t max_num_batched_tokens = 2048;
};

// What a sequence needs of the cache.
struct KvCost {
  std::int64_t block_bytes = 0, block_size = 0;
  std::vector<std::int64_t> sliding_windows;  // of each KV group; 0: all positions

  // Blocks of a sequence of `tokens` tokens, of which a step computes up to `in_flight`.
  std::int64_t blocks_for(std::int64_t tokens, std::int64_t in_flight) const;
};
// Of the decoder's layout on its backend.
KvCost measure_kv_cost(const Decoder& decoder, DType kv_cache_dtype);

// Bytes that the process may use. Throws Error when a utilization was asked for and less is free.
std::int64_t check_memory_at_start(const MemoryOptions& options, const MemoryInfo& at_start);

// One forward pass of `tokens` tokens (those of one step at most) in sequences of up to `max_model_len`, and
// the logits of `logit_rows` rows; returns the bytes of everything but the KV cache.
std::int64_t profile_run(Decoder& decoder, std::int64_t tokens, std::int64_t max_model_len,
                         std::int64_t logit_rows);

struct MemoryPlan {
  std::int64_t requested_bytes = 0, non_kv_bytes = 0, available_bytes = 0;
  std::int64_t num_blocks = 0;  // the null block included
  std::int64_t max_model_len = 0;
  double max_concurrency = 0;  // sequences of max_model_len tokens
  std::int64_t cache_tokens = 0;

  // "Available KV cache memory: 1.50 GiB", ...: those of vLLM, in its order and words. `device` is "GPU" or
  // "CPU".
  std::vector<std::string> lines(const std::string& device) const;
};
// Throws Error when not even one sequence of max_model_len tokens fits, naming needed and available memory
// and the longest that would.
MemoryPlan plan_memory(const MemoryOptions& options, const KvCost& cost, std::int64_t requested_bytes,
                       std::int64_t non_kv_bytes);

}  // namespace bise
