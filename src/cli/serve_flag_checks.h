// What `bise serve`'s flags say before they are checked, and the checks that make settings of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/serve_flags.h"

namespace bise {

// Flags whose values Flags cannot check by itself, with vLLM's defaults.
struct ServeFlagTexts {
  std::string max_model_len, kv_cache_memory_bytes, max_num_seqs, max_num_batched_tokens;
  std::string gpu_memory_utilization, speculative_config, spec_method, spec_tokens, spec_model;
  std::string scheduling_policy = "fcfs", dtype = "auto";
  std::string tokenizer_mode = "auto", runner = "auto", convert = "auto", task;
  std::string allowed_origins = "[]", allowed_methods = R"(["*"])", allowed_headers = R"(["*"])";
  std::string log_level = "info", unlogged_paths, max_log_len, seed = "0", max_request_bytes;
  std::int64_t port = 8000, tensor_parallel_size = 1, pipeline_parallel_size = 1, data_parallel_size = 1;
  std::int64_t decode_context_parallel_size = 1, nnodes = 1, ssl_cert_reqs = 0;
  std::int64_t h11_max_incomplete_event_size = 4 << 20, h11_max_header_count = 256;
  bool disable_uvicorn_access_log = false, enable_lora = false, skip_tokenizer_init = false, headless = false;
  bool enable_prompt_embeds = false;
  std::vector<std::string> lora_modules, middleware, logits_processors;
};

// Completes `settings`. Throws Error naming the flag.
void check_serve_flags(const ServeFlagTexts& texts, ServeSettings& settings);

}  // namespace bise
