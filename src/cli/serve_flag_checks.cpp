#include "cli/serve_flag_checks.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace bise {
namespace {

using Texts = ServeFlagTexts;

void require_one_of(const std::string& value, const char* flag, std::initializer_list<const char*> known) {
  if (std::ranges::find(known, value) != known.end()) return;
  throw Error("unknown value")
      .at(flag)
      .expected(fmt::format("{}", fmt::join(known, ", ")))
      .got("\"" + value + "\"");
}

void require_range(std::int64_t value, const char* flag, std::int64_t least, std::int64_t most) {
  if (value < least || value > most)
    throw Error("value is out of range")
        .at(flag)
        .expected(fmt::format("{} to {}", least, most))
        .got(std::to_string(value));
}

double parse_number(const std::string& text, const char* flag) {
  double value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    throw Error("wrong type").at(flag).expected("a number").got("\"" + text + "\"");
  return value;
}

std::vector<std::string> parse_list(const std::string& text, const char* flag) {
  const Json list = parse_json(text, flag);
  if (!list.is_array() || !std::ranges::all_of(list, [](const Json& item) { return item.is_string(); }))
    throw Error("wrong type").at(flag).expected("a JSON list of strings").got(text);
  return list.get<std::vector<std::string>>();
}

void refuse_what_is_missing(const ServeSettings& settings, const Texts& texts) {
  for (const auto& [size, flag] :
       {std::pair{texts.tensor_parallel_size, "--tensor-parallel-size"},
        std::pair{texts.pipeline_parallel_size, "--pipeline-parallel-size"},
        std::pair{texts.data_parallel_size, "--data-parallel-size"},
        std::pair{texts.decode_context_parallel_size, "--decode-context-parallel-size"},
        std::pair{texts.nnodes, "--nnodes"}})
    if (size != 1) throw Error("bise serves on one device").at(flag).expected("1").got(std::to_string(size));
  if (texts.enable_lora || !texts.lora_modules.empty())
    throw Error("LoRA adapters are not implemented").at("--enable-lora, --lora-modules");
  if (!texts.middleware.empty() || !texts.logits_processors.empty())
    throw Error("Python plugins cannot be loaded").at("--middleware, --logits-processors");
  if (texts.skip_tokenizer_init) throw Error("there is always a tokenizer").at("--skip-tokenizer-init");
  if (texts.enable_prompt_embeds) throw Error("not implemented").at("--enable-prompt-embeds");
  if (texts.headless) throw Error("there is one process").at("--headless");
  require_one_of(texts.runner, "--runner", {"auto", "generate"});
  require_one_of(texts.convert, "--convert", {"auto", "none"});
  require_one_of(texts.task, "--task", {"", "auto", "generate"});
  require_one_of(texts.dtype, "--dtype", {"auto", "bfloat16", "half", "float16", "float", "float32"});
  require_one_of(texts.tokenizer_mode, "--tokenizer-mode", {"auto", "hf", "slow", "mistral"});
  require_one_of(settings.logprobs_mode, "--logprobs-mode",
                 {"raw_logprobs", "processed_logprobs", "raw_logits", "processed_logits"});
  require_one_of(settings.load_format, "--load-format", {"auto", "hf", "safetensors", "mistral", "mock"});
  require_one_of(settings.tool_call_parser, "--tool-call-parser", {"", "mistral"});
  require_one_of(settings.reasoning_parser, "--reasoning-parser", {"", "mistral"});
  require_one_of(settings.fingerprint_mode, "--fingerprint-mode", {"full", "hash", "custom", "none"});
}

// A missing bound of the n-gram's length equals the other; without both it is 5 (spec section 3.6).
void read_speculation(const Texts& texts, EngineOptions& engine) {
  const char* flag = "--speculative-config";
  Json config =
      texts.speculative_config.empty() ? Json::object() : parse_json(texts.speculative_config, flag);
  if (!config.is_object()) throw Error("wrong type").at(flag).expected("a JSON object");
  if (!texts.spec_method.empty()) config["method"] = texts.spec_method;
  if (!texts.spec_tokens.empty())
    config["num_speculative_tokens"] = parse_count(texts.spec_tokens, "--spec-tokens");
  if (!texts.spec_model.empty()) config["model"] = texts.spec_model;
  if (config.empty()) return;
  for (const auto& [key, value] : config.items())
    if (key != "method" && key != "num_speculative_tokens" && key != "prompt_lookup_max" &&
        key != "prompt_lookup_min")
      throw Error("key \"{}\" is not implemented", key).at(flag);
  require_one_of(find_string(config, "method", "", flag), "--speculative-config: method", {"ngram"});
  engine.num_speculative_tokens = require_int(config, "num_speculative_tokens", flag);
  const std::int64_t least = find_int(config, "prompt_lookup_min", 0, flag);
  const std::int64_t most = find_int(config, "prompt_lookup_max", 0, flag);
  engine.prompt_lookup_max = most > 0 ? most : least > 0 ? least : 5;
  engine.prompt_lookup_min = least > 0 ? least : engine.prompt_lookup_max;
  require_range(engine.num_speculative_tokens, "--speculative-config: num_speculative_tokens", 1, 64);
  require_range(engine.prompt_lookup_max, "--speculative-config: prompt_lookup_max", 1, 1024);
  require_range(engine.prompt_lookup_min, "--speculative-config: prompt_lookup_min", 1,
                engine.prompt_lookup_max);
}

void check_engine(ServeSettings& settings, const Texts& texts) {
  if (texts.max_model_len == "auto" || texts.max_model_len == "-1") {
    settings.max_model_len = -1;
  } else if (!texts.max_model_len.empty()) {
    settings.max_model_len = parse_count(texts.max_model_len, "--max-model-len");
    require_range(settings.max_model_len, "--max-model-len", 1, std::int64_t{1} << 31);
  }
  const auto count = [](const std::string& text, const char* flag, std::int64_t most) {
    std::optional<std::int64_t> value;
    if (!text.empty()) {
      value = parse_count(text, flag);
      require_range(*value, flag, 1, most);
    }
    return value;
  };
  settings.max_num_seqs = count(texts.max_num_seqs, "--max-num-seqs", 1 << 16);
  settings.max_num_batched_tokens = count(texts.max_num_batched_tokens, "--max-num-batched-tokens", 1 << 22);
  settings.kv_cache_memory_bytes =
      count(texts.kv_cache_memory_bytes, "--kv-cache-memory-bytes", std::int64_t{1} << 50).value_or(0);
  if (!texts.gpu_memory_utilization.empty()) {
    const double share = parse_number(texts.gpu_memory_utilization, "--gpu-memory-utilization");
    if (share <= 0 || share > 1)
      throw Error("value is out of range").at("--gpu-memory-utilization").expected("above 0, at most 1");
    settings.gpu_memory_utilization = share;
  }
  require_range(settings.num_gpu_blocks_override, "--num-gpu-blocks-override", 0, std::int64_t{1} << 31);
  require_range(settings.block_size, "--block-size", 0, 1024);
  require_one_of(texts.scheduling_policy, "--scheduling-policy", {"fcfs", "priority"});
  if (texts.scheduling_policy == "priority") settings.engine.scheduling_policy = SchedulingPolicy::kPriority;
  for (const auto& [value, flag] :
       {std::pair{settings.engine.max_num_queued_reqs, "--max-num-queued-reqs"},
        std::pair{settings.engine.max_num_queued_tokens, "--max-num-queued-tokens"},
        std::pair{settings.engine.long_prefill_token_threshold, "--long-prefill-token-threshold"}})
    require_range(value, flag, 0, std::int64_t{1} << 40);
  parse_number(texts.seed, "--seed");
  read_speculation(texts, settings.engine);
  if (settings.mock_token_seconds < 0 || settings.mock_token_seconds > 60)
    throw Error("value is out of range").at("--mock-token-seconds").expected("0 to 60");
  if (settings.mock_fail_after_steps < 0)
    throw Error("value is out of range").at("--mock-fail-after-steps").expected("0 or more");
}

void check_answers(const ServeSettings& settings) {
  require_range(settings.max_logprobs, "--max-logprobs", -1, 1 << 24);
  require_range(settings.stream_interval, "--stream-interval", 1, 1 << 20);
  if (settings.enable_auto_tool_choice && settings.tool_call_parser.empty())
    throw Error("--enable-auto-tool-choice needs --tool-call-parser");
  if (settings.fingerprint_mode == "custom" && settings.fingerprint_value.empty())
    throw Error("--fingerprint-mode custom needs --fingerprint-value");
}

void check_http(ServeSettings& settings, const Texts& texts) {
  require_range(texts.port, "--port", 0, 65535);
  settings.http.port = static_cast<std::uint16_t>(texts.port);
  require_range(texts.ssl_cert_reqs, "--ssl-cert-reqs", 0, 2);
  settings.http.ssl_require_client_cert = texts.ssl_cert_reqs == 2;
  if (!settings.http.ssl_keyfile.empty() && settings.http.ssl_certfile.empty())
    throw Error("--ssl-keyfile needs --ssl-certfile");
  const std::string& body = texts.max_request_bytes;
  if (!body.empty())
    settings.http.max_body_bytes = static_cast<std::size_t>(parse_count(body, "--max-request-bytes"));
  require_range(texts.h11_max_incomplete_event_size, "--h11-max-incomplete-event-size", 1024, 1 << 30);
  settings.http.max_header_bytes = static_cast<std::size_t>(texts.h11_max_incomplete_event_size);
  require_range(texts.h11_max_header_count, "--h11-max-header-count", 1, 1 << 20);
  settings.http.max_headers = static_cast<int>(texts.h11_max_header_count);
  if (!(settings.shutdown_timeout >= 0 && settings.shutdown_timeout <= 86400))
    throw Error("value is out of range").at("--shutdown-timeout").expected("0 to 86400 seconds");

  ServerOptions& server = settings.server;
  server.cors.allowed_origins = parse_list(texts.allowed_origins, "--allowed-origins");
  server.cors.allowed_methods = parse_list(texts.allowed_methods, "--allowed-methods");
  server.cors.allowed_headers = parse_list(texts.allowed_headers, "--allowed-headers");
  if (!server.root_path.empty() && !server.root_path.starts_with('/')) server.root_path.insert(0, "/");
  while (server.root_path.ends_with('/')) server.root_path.pop_back();
  std::erase(server.api_keys, "");
  if (!texts.max_log_len.empty())
    server.max_log_len = static_cast<std::size_t>(parse_count(texts.max_log_len, "--max-log-len"));
  require_one_of(texts.log_level, "--uvicorn-log-level",
                 {"trace", "debug", "info", "warning", "error", "critical"});
  const bool quiet =
      texts.log_level == "warning" || texts.log_level == "error" || texts.log_level == "critical";
  server.access_log = !quiet && !texts.disable_uvicorn_access_log;
  for (std::string rest = texts.unlogged_paths; !rest.empty();) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    server.unlogged_paths.push_back(rest.substr(0, comma));
    rest.erase(0, comma + 1);
  }
}

}  // namespace

std::int64_t parse_count(const std::string& text, const std::string& flag) {
  const auto wrong = [&] {
    return Error("wrong type")
        .at(flag)
        .expected("a whole number, such as 32768, 32k or 4G")
        .got("\"" + text + "\"");
  };
  double value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc()) throw wrong();
  const std::string suffix(end, text.data() + text.size());
  constexpr std::string_view kDecimal = "kmgt", kBinary = "KMGT";
  if (suffix.size() == 1 && kDecimal.find(suffix[0]) != std::string_view::npos) {
    value *= std::pow(1000.0, static_cast<double>(kDecimal.find(suffix[0]) + 1));
  } else if (suffix.size() == 1 && kBinary.find(suffix[0]) != std::string_view::npos) {
    value *= std::pow(1024.0, static_cast<double>(kBinary.find(suffix[0]) + 1));
  } else if (!suffix.empty()) {
    throw wrong();
  }
  if (value < 0 || value > 9e15 || value != std::floor(value)) throw wrong();
  return static_cast<std::int64_t>(value);
}

void check_serve_flags(const ServeFlagTexts& texts, ServeSettings& settings) {
  if (texts.dtype != "auto" && texts.dtype != "bfloat16")
    settings.without_effect.push_back("--dtype " + texts.dtype);
  refuse_what_is_missing(settings, texts);
  check_engine(settings, texts);
  check_answers(settings);
  check_http(settings, texts);
}

}  // namespace bise
