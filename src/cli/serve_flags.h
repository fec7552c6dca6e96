// The flags of `bise serve`: vLLM's names, meanings and defaults as far as one device goes, checked, as plain
// settings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "cli/runtime.h"
#include "engine/engine.h"
#include "net/http_server.h"
#include "serve/server.h"

namespace bise {

struct ServeSettings {
  // Model.
  std::string model, tokenizer, chat_template, quantization;
  std::vector<std::string> served_model_names;
  std::string load_format = "auto";  // auto, hf, safetensors, mistral: all read what is there; mock
  double mock_token_seconds = 0.01;
  std::int64_t mock_fail_after_steps = 0;
  std::string generation_config = "auto";  // auto, vllm, or a folder
  std::string override_generation_config = "{}";
  std::string fingerprint_mode = "full", fingerprint_value;

  // Engine. max_model_len: 0 = the checkpoint's, -1 = as much as fits.
  EngineOptions engine;
  std::int64_t max_model_len = 0;
  std::optional<std::int64_t> max_num_seqs, max_num_batched_tokens;
  std::optional<double> gpu_memory_utilization;
  std::int64_t kv_cache_memory_bytes = 0, num_gpu_blocks_override = 0, block_size = 0;  // 0: not given
  bool disable_sliding_window = false;
  std::string logprobs_mode = "raw_logprobs";
  DeviceFlags device;

  // Answers.
  std::string response_role = "assistant", tool_call_parser, reasoning_parser;
  bool enable_auto_tool_choice = false, exclude_tools_when_tool_choice_none = false;
  bool emit_reasoning_content = false, trust_request_chat_template = false;
  bool enable_prompt_tokens_details = false, enable_force_include_usage = false;
  bool return_tokens_as_token_ids = false;
  std::int64_t max_logprobs = 20, stream_interval = 1;

  // Server.
  HttpServerOptions http;
  ServerOptions server;
  bool enable_server_load_tracking = false, disable_log_stats = false;
  double shutdown_timeout = 0;  // s

  std::vector<std::string> without_effect;                 // vLLM flags given that do nothing here
  std::vector<std::pair<std::string, std::string>> given;  // all others given, with their values
};

// Nothing when --help was asked for. Throws Error naming the flag.
std::optional<ServeSettings> parse_serve_flags(const std::vector<std::string>& arguments);

// "32k" = 32000, "32K" = 32768, "1.5m", "4G": vLLM's way to write counts and bytes. Throws Error at `flag`.
std::int64_t parse_count(const std::string& text, const std::string& flag);

}  // namespace bise
