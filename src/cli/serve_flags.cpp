#include "cli/serve_flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/flags.h"
#include "cli/serve_arguments.h"

namespace bise {
namespace {

// What Flags fills before it is checked.
struct Texts {
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

void declare_model(Flags& flags, ServeSettings& settings, Texts& texts) {
  flags.positional("model", settings.model, "checkpoint folder");
  flags.group("Model");
  flags.option("--served-model-name", settings.served_model_names,
               "names that requests may use; the first stands in replies (default: the model as given)");
  flags.option("--tokenizer", settings.tokenizer, "folder of the tokenizer, when not the model's");
  flags.option("--tokenizer-mode", texts.tokenizer_mode, "auto, hf, slow or mistral: read what is there");
  flags.option(
      "--load-format", settings.load_format,
      "auto, hf, safetensors or mistral: read what is there; mock: no weights, fixed time per token");
  flags.option("--mock-token-seconds", settings.mock_token_seconds, "step time of --load-format mock");
  flags.option("--dtype", texts.dtype, "no effect: weights stay as the checkpoint stores them");
  flags.option("--quantization", settings.quantization, "must be the checkpoint's method, when given (-q)");
  flags.option("--max-model-len", texts.max_model_len,
               "tokens of prompt and answer; 32k, 32K; auto or -1: as many as fit (default: the model's)");
  flags.option("--generation-config", settings.generation_config,
               "auto: the model's generation_config.json; vllm: none; or a folder");
  flags.option("--override-generation-config", settings.override_generation_config, "JSON over it");
  flags.option("--chat-template", settings.chat_template, "Jinja file instead of the model's template");
  flags.option("--seed", texts.seed, "accepted: requests without a seed get a random one");
  flags.option("--runner", texts.runner, "auto or generate");
  flags.option("--convert", texts.convert, "auto or none");
  flags.option("--task", texts.task, "auto or generate");
  flags.flag_pair("--skip-tokenizer-init", texts.skip_tokenizer_init, "refused: there is always a tokenizer");
  flags.flag_pair("--enable-prompt-embeds", texts.enable_prompt_embeds, "refused: not implemented");
  flags.flag_pair("--enable-lora", texts.enable_lora, "refused: not implemented");
  flags.option("--lora-modules", texts.lora_modules, "refused: not implemented");
  flags.option("--logits-processors", texts.logits_processors, "refused: Python plugins");
}

void declare_engine(Flags& flags, ServeSettings& settings, Texts& texts) {
  flags.group("Engine");
  settings.device.kv_cache_dtype = "auto";
  settings.device.declare(flags);
  flags.option("--gpu-memory-utilization", texts.gpu_memory_utilization,
               "share of the device's memory (of the machine's, on the CPU) to use");
  flags.option("--kv-cache-memory-bytes", texts.kv_cache_memory_bytes,
               "size of the KV cache instead; 512M, 4G");
  flags.option("--num-gpu-blocks-override", settings.num_gpu_blocks_override, "blocks of the cache instead");
  flags.option("--block-size", settings.block_size, "tokens of a cache block; 0 = the device's own");
  flags.option("--max-num-seqs", texts.max_num_seqs, "sequences of one step");
  flags.option("--max-num-batched-tokens", texts.max_num_batched_tokens, "tokens of one step");
  flags.flag_pair("--enable-prefix-caching", settings.engine.enable_prefix_caching,
                  "share the cache of common beginnings");
  flags.flag_pair("--enable-chunked-prefill", settings.engine.enable_chunked_prefill,
                  "compute long prompts in pieces beside other requests");
  flags.option("--long-prefill-token-threshold", settings.engine.long_prefill_token_threshold,
               "most tokens of one prompt in a step while others wait; 0 = off");
  flags.flag_pair("--disable-sliding-window", settings.disable_sliding_window,
                  "cap the context at the window instead");
  flags.option("--scheduling-policy", texts.scheduling_policy, "fcfs or priority");
  flags.option("--max-num-queued-reqs", settings.engine.max_num_queued_reqs,
               "waiting requests from which on new ones get 503; 0 = any number");
  flags.option("--max-num-queued-tokens", settings.engine.max_num_queued_tokens,
               "the same in tokens of their prompts");
  flags.option("--speculative-config", texts.speculative_config,
               R"(JSON: {"method":"ngram","num_speculative_tokens":5, ...} (-sc))");
  flags.option("--spec-method", texts.spec_method, "the method of it");
  flags.option("--spec-tokens", texts.spec_tokens, "its num_speculative_tokens");
  flags.option("--spec-model", texts.spec_model, "refused: only ngram is implemented");
  flags.option("--tensor-parallel-size", texts.tensor_parallel_size, "1: one device (-tp)");
  flags.option("--pipeline-parallel-size", texts.pipeline_parallel_size, "1 (-pp)");
  flags.option("--data-parallel-size", texts.data_parallel_size, "1 (-dp)");
  flags.option("--decode-context-parallel-size", texts.decode_context_parallel_size, "1 (-dcp)");
  flags.option("--nnodes", texts.nnodes, "1");
}

void declare_answers(Flags& flags, ServeSettings& settings) {
  flags.group("Answers");
  flags.option("--response-role", settings.response_role, "role of the answers");
  flags.flag_pair("--enable-auto-tool-choice", settings.enable_auto_tool_choice,
                  "let the model choose tools; needs --tool-call-parser");
  flags.option("--tool-call-parser", settings.tool_call_parser, "mistral");
  flags.option("--reasoning-parser", settings.reasoning_parser, "mistral");
  flags.flag_pair("--exclude-tools-when-tool-choice-none", settings.exclude_tools_when_tool_choice_none,
                  "leave tools out of the prompt then");
  flags.flag_pair("--emit-reasoning-content", settings.emit_reasoning_content,
                  "write reasoning under its older name reasoning_content too (bise's own)");
  flags.flag_pair("--trust-request-chat-template", settings.trust_request_chat_template,
                  "allow chat_template in requests");
  flags.option("--max-logprobs", settings.max_logprobs, "most logprobs a request may ask for; -1 = any");
  flags.option("--logprobs-mode", settings.logprobs_mode,
               "raw_logprobs, processed_logprobs, raw_logits or processed_logits");
  flags.flag_pair("--return-tokens-as-token-ids", settings.return_tokens_as_token_ids,
                  "write tokens as token_id:N in logprobs");
  flags.flag_pair("--enable-prompt-tokens-details", settings.enable_prompt_tokens_details,
                  "report cached tokens in usage");
  flags.flag_pair("--enable-force-include-usage", settings.enable_force_include_usage,
                  "report usage in every stream");
  flags.option("--stream-interval", settings.stream_interval, "tokens of one chunk");
  flags.option("--fingerprint-mode", settings.fingerprint_mode, "full, hash, custom or none");
  flags.option("--fingerprint-value", settings.fingerprint_value, "system_fingerprint of mode custom");
}

void declare_http(Flags& flags, ServeSettings& settings, Texts& texts) {
  flags.group("Server");
  flags.option("--host", settings.http.host, "address to listen on");
  flags.option("--port", texts.port, "0 = any free one");
  flags.option("--uds", settings.http.unix_socket, "unix socket to listen on instead");
  flags.option("--root-path", settings.server.root_path, "prefix of paths that a proxy leaves in place");
  flags.option("--api-key", settings.server.api_keys,
               "keys, one of which requests under /v1, /v2, /inference, /cohere need (or VLLM_API_KEY)");
  flags.flag_pair("--api-key-for-all-routes", settings.server.api_key_guards_all,
                  "ask for the key everywhere but on /health and /ping (bise's own)");
  flags.option("--allowed-origins", texts.allowed_origins, R"(CORS: JSON list; ["*"] for any)");
  flags.option("--allowed-methods", texts.allowed_methods, "CORS: JSON list");
  flags.option("--allowed-headers", texts.allowed_headers, "CORS: JSON list");
  flags.flag_pair("--allow-credentials", settings.server.cors.allow_credentials, "CORS: cookies");
  flags.option("--ssl-certfile", settings.http.ssl_certfile, "PEM file: serve HTTPS");
  flags.option("--ssl-keyfile", settings.http.ssl_keyfile, "PEM file of the key");
  flags.option("--ssl-ca-certs", settings.http.ssl_ca_certs, "PEM file: whom clients must be signed by");
  flags.option("--ssl-cert-reqs", texts.ssl_cert_reqs, "2 = clients must show a certificate; 0 or 1 = not");
  flags.option("--ssl-ciphers", settings.http.ssl_ciphers, "OpenSSL's list");
  flags.option("--max-request-bytes", texts.max_request_bytes, "largest body, else 413 (64M; bise's own)");
  flags.option("--h11-max-incomplete-event-size", texts.h11_max_incomplete_event_size,
               "largest header block");
  flags.option("--h11-max-header-count", texts.h11_max_header_count, "most headers");
  flags.option("--shutdown-timeout", settings.shutdown_timeout,
               "seconds that running requests get after SIGTERM or Ctrl-C");
  flags.flag_pair("--enable-request-id-headers", settings.server.enable_request_id_headers,
                  "send X-Request-Id with every answer");
  flags.flag_pair("--enable-server-load-tracking", settings.enable_server_load_tracking, "count in /load");
  flags.option("--middleware", texts.middleware, "refused: Python plugins");
  flags.flag_pair("--headless", texts.headless, "refused: there is one process");
  flags.group("Logging");
  flags.flag_pair("--disable-log-stats", settings.disable_log_stats, "no statistics line every 10 s");
  flags.flag_pair("--enable-log-requests", settings.server.enable_log_requests, "log every request's body");
  flags.option("--max-log-len", texts.max_log_len, "bytes of a logged body (2048)");
  flags.option("--uvicorn-log-level", texts.log_level,
               "trace, debug, info, or, without the access log, warning, error, critical");
  flags.flag_pair("--disable-uvicorn-access-log", texts.disable_uvicorn_access_log, "no line per call");
  flags.option("--disable-access-log-for-endpoints", texts.unlogged_paths, "paths, separated by commas");
}

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

std::optional<ServeSettings> parse_serve_flags(const std::vector<std::string>& arguments) {
  ServeSettings settings;
  Texts texts;
  Flags flags("serve", "An OpenAI-compatible server with vLLM's flags, routes and metrics.");
  std::string config;
  declare_model(flags, settings, texts);
  declare_engine(flags, settings, texts);
  declare_answers(flags, settings);
  declare_http(flags, settings, texts);
  flags.option("--config", config, "YAML file of flags without their dashes; the command line wins");
  const ServeArguments prepared = prepare_serve_arguments(arguments);
  if (!flags.parse(prepared.arguments)) return std::nullopt;
  settings.given = flags.given_values();
  settings.without_effect = prepared.without_effect;
  if (texts.dtype != "auto" && texts.dtype != "bfloat16")
    settings.without_effect.push_back("--dtype " + texts.dtype);
  refuse_what_is_missing(settings, texts);
  check_engine(settings, texts);
  check_answers(settings);
  check_http(settings, texts);
  return settings;
}

}  // namespace bise
