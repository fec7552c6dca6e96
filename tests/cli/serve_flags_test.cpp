#include "cli/serve_flags.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace bise {
namespace {

using Strings = std::vector<std::string>;

ServeSettings parse(Strings arguments) {
  arguments.insert(arguments.begin(), "model");
  return *parse_serve_flags(arguments);
}

TEST(ServeFlags, DefaultsAreVllms) {
  const ServeSettings settings = parse({});
  EXPECT_EQ(settings.model, "model");
  EXPECT_EQ(settings.http.host, "0.0.0.0");
  EXPECT_EQ(settings.http.port, 8000);
  EXPECT_EQ(settings.max_model_len, 0);
  EXPECT_EQ(settings.max_logprobs, 20);
  EXPECT_TRUE(settings.engine.enable_prefix_caching);
  EXPECT_TRUE(settings.engine.enable_chunked_prefill);
  EXPECT_EQ(settings.server.cors.allowed_origins, Strings{});
  EXPECT_EQ(settings.server.cors.allowed_methods, Strings{"*"});
  EXPECT_TRUE(settings.server.access_log);
  EXPECT_EQ(settings.engine.num_speculative_tokens, 0);
  EXPECT_EQ(settings.response_role, "assistant");
  EXPECT_TRUE(settings.given.size() == 1) << "the model";
}

TEST(ServeFlags, ValuesReachTheSettings) {
  const ServeSettings settings = parse({"--served_model_name",
                                        "a",
                                        "b",
                                        "--api-key",
                                        "k1",
                                        "k2",
                                        "--port",
                                        "0",
                                        "--max-model-len=32K",
                                        "--kv-cache-memory-bytes",
                                        "1.5G",
                                        "--no-enable-prefix-caching",
                                        "--allowed-origins",
                                        R"(["*"])",
                                        "--root-path",
                                        "proxy/",
                                        "--scheduling-policy",
                                        "priority",
                                        "--uvicorn-log-level",
                                        "warning",
                                        "--disable-access-log-for-endpoints",
                                        "/health,/metrics",
                                        "--max-request-bytes",
                                        "1K",
                                        "--gpu-memory-utilization",
                                        "0.5",
                                        "--ssl-cert-reqs",
                                        "2",
                                        "--max-logprobs",
                                        "-1",
                                        "--enforce-eager",
                                        "--speculative-config.method",
                                        "ngram",
                                        "--speculative-config.num_speculative_tokens",
                                        "4",
                                        "--speculative-config.prompt_lookup_max",
                                        "3",
                                        "--enable-auto-tool-choice",
                                        "--tool-call-parser",
                                        "mistral"});
  EXPECT_EQ(settings.served_model_names, (Strings{"a", "b"}));
  EXPECT_EQ(settings.server.api_keys, (Strings{"k1", "k2"}));
  EXPECT_EQ(settings.http.port, 0);
  EXPECT_EQ(settings.max_model_len, 32768);
  EXPECT_EQ(settings.kv_cache_memory_bytes, std::int64_t{3} << 29);
  EXPECT_FALSE(settings.engine.enable_prefix_caching);
  EXPECT_EQ(settings.server.cors.allowed_origins, Strings{"*"});
  EXPECT_EQ(settings.server.root_path, "/proxy");
  EXPECT_EQ(settings.engine.scheduling_policy, SchedulingPolicy::kPriority);
  EXPECT_FALSE(settings.server.access_log);
  EXPECT_EQ(settings.server.unlogged_paths, (Strings{"/health", "/metrics"}));
  EXPECT_EQ(settings.http.max_body_bytes, 1024u);
  EXPECT_EQ(settings.gpu_memory_utilization, 0.5);
  EXPECT_TRUE(settings.http.ssl_require_client_cert);
  EXPECT_EQ(settings.max_logprobs, -1);
  EXPECT_EQ(settings.without_effect, Strings{"--enforce-eager"});
  EXPECT_EQ(settings.engine.num_speculative_tokens, 4);
  EXPECT_EQ(settings.engine.prompt_lookup_min, 3);
  EXPECT_EQ(settings.engine.prompt_lookup_max, 3);
  EXPECT_EQ(parse({"--max-model-len", "auto"}).max_model_len, -1);
  EXPECT_EQ(parse({"--max-model-len", "-1"}).max_model_len, -1);
  EXPECT_EQ(parse({"--dtype", "half"}).without_effect, Strings{"--dtype half"});
  EXPECT_EQ(parse({"--port", "1", "--port", "2"}).http.port, 2);
}

TEST(ServeFlags, MistakesAreErrorsThatHelp) {
  struct Case {
    Strings arguments;
    std::string message;
  };
  for (const Case& test : std::vector<Case>{
           {{"--max-model-length", "5"}, "did you mean --max-model-len?"},
           {{"--gpu_memory_utilisation", "0.5"}, "did you mean --gpu-memory-utilization?"},
           {{"--no-such-thing"}, "unknown argument --no-such-thing"},
           {{"-tp", "2"}, "--tensor-parallel-size: bise serves on one device; expected 1, got 2"},
           {{"--port", "70000"}, "--port: value is out of range"},
           {{"--port", "http"}, "--port"},
           {{"--max-model-len", "32x"}, "--max-model-len: wrong type"},
           {{"--max-model-len", "1.5"}, "--max-model-len: wrong type"},
           {{"--gpu-memory-utilization", "1.5"}, "above 0, at most 1"},
           {{"--gpu-memory-utilization", "half"}, "expected a number"},
           {{"--allowed-origins", "*"}, "--allowed-origins: invalid JSON"},
           {{"--allowed-origins", "[1]"}, "a JSON list of strings"},
           {{"--enable-lora"}, "LoRA adapters are not implemented"},
           {{"--enable-auto-tool-choice"}, "--enable-auto-tool-choice needs --tool-call-parser"},
           {{"--tool-call-parser", "hermes"}, R"(expected , mistral, got "hermes")"},
           {{"--load-format", "gguf"}, "--load-format: unknown value"},
           {{"--speculative-config", R"({"method":"eagle"})"}, "method: unknown value"},
           {{"--speculative-config", R"({"method":"ngram"})"}, "num_speculative_tokens"},
           {{"--speculative-config", "5"}, "expected a JSON object"},
           {{"--max-num-seqs", "0"}, "--max-num-seqs: value is out of range"},
           {{"--shutdown-timeout", "-1"}, "--shutdown-timeout"},
           {{"--ssl-keyfile", "k.pem"}, "--ssl-keyfile needs --ssl-certfile"}}) {
    try {
      parse(test.arguments);
      ADD_FAILURE() << "accepted; expected " << test.message;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find(test.message), std::string::npos)
          << error.what() << "\nexpected: " << test.message;
    }
  }
}

TEST(ServeFlags, CountsMayHaveSuffixes) {
  for (const auto& [text, value] : std::vector<std::pair<std::string, std::int64_t>>{{"7", 7},
                                                                                     {"32k", 32'000},
                                                                                     {"32K", 32'768},
                                                                                     {"25.6k", 25'600},
                                                                                     {"1M", 1 << 20},
                                                                                     {"2g", 2'000'000'000}})
    EXPECT_EQ(parse_count(text, "--x"), value) << text;
  for (const char* text : {"", "k", "1kk", "-1", "1.5", "1e400", "nan", "0x10", "1 k"})
    EXPECT_THROW(parse_count(text, "--x"), Error) << text;
}

}  // namespace
}  // namespace bise
