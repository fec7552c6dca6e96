#include "cli/serve_flags.h"

#include "cli/flags.h"
#include "cli/serve_arguments.h"
#include "cli/serve_flag_checks.h"

namespace bise {
namespace {

using Texts = ServeFlagTexts;

void declare_model(Flags& flags, ServeSettings& settings, Texts& texts) {
  flags.positional("model", settings.model, "checkpoint folder, or owner/name of a downloaded model");
  flags.group("Model");
  flags.option("--served-model-name", settings.served_model_names,
               "names that requests may use; the first stands in replies (default: the model as given)");
  flags.option("--tokenizer", settings.tokenizer, "folder of the tokenizer, when not the model's");
  flags.option("--tokenizer-mode", texts.tokenizer_mode, "auto, hf, slow or mistral: read what is there");
  flags.option(
      "--load-format", settings.load_format,
      "auto, hf, safetensors or mistral: read what is there; mock: no weights, fixed time per token");
  flags.option("--mock-token-seconds", settings.mock_token_seconds, "step time of --load-format mock");
  flags.option("--mock-fail-after-steps", settings.mock_fail_after_steps,
               "after so many steps --load-format mock fails as a broken device does; 0: never");
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

}  // namespace

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
  check_serve_flags(texts, settings);
  return settings;
}

}  // namespace bise
