// `bise serve`: starts the server, waits for the end, and ends it in order.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "cli/commands.h"
#include "cli/hub_settings.h"
#include "cli/serve_flags.h"
#include "cli/serve_model.h"
#include "cli/serve_signals.h"
#include "cli/version.h"
#include "engine/engine.h"
#include "serve/openai_service.h"
#include "serve/server.h"
#include "serve/server_log.h"
#include "serve/server_routes.h"
#include "serve/stats_logger.h"

namespace bise {
namespace {

// How long answers in progress get to leave after their requests were aborted.
constexpr double kLastAnswersSeconds = 2;

// "0.1.0+bise.1c95fa8": bise's own, in the form that Python's version parsers read.
std::string api_version() {
  std::string version = version_text();
  const std::size_t space = version.find(" (");
  if (space == std::string::npos) return version;
  std::string commit = version.substr(space + 2, version.size() - space - 3);
  std::ranges::replace(commit, '-', '.');
  return version.substr(0, space) + "+bise." + commit;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string given_text(const ServeSettings& settings) {
  std::vector<std::string> parts;
  for (const auto& [name, value] : settings.given) {
    std::string key = name.starts_with("--") ? name.substr(2) : name;
    std::ranges::replace(key, '-', '_');
    parts.push_back(fmt::format("'{}': '{}'", key, key == "api_key" ? "***" : value));
  }
  return fmt::format("{{{}}}", fmt::join(parts, ", "));
}

void print_beginning(const ServeSettings& settings) {
  server_info("bise server version {}", version_text());
  server_info("non-default args: {}", given_text(settings));
  for (const std::string& flag : settings.without_effect)
    server_warning("{} is accepted, as vLLM has it, and has no effect", flag);
}

std::string fingerprint(const ServeSettings& settings, const ServedModel& model) {
  if (settings.fingerprint_mode == "none") return "";
  if (settings.fingerprint_mode == "custom") return settings.fingerprint_value;
  const std::size_t hash = std::hash<std::string>{}(model.root + given_text(settings));
  return fmt::format("bise-{}-{:08x}", api_version(), static_cast<std::uint32_t>(hash));
}

Json settings_json(const ServeSettings& settings, const EngineOptions& options, const ServedModel& model) {
  Json given = Json::object();
  for (const auto& [name, value] : settings.given)
    if (name != "--api-key") given[name] = value;
  return {{"version", api_version()},
          {"vllm_config",
           {{"model", model.root},
            {"served_model_name", model.names},
            {"max_model_len", options.max_model_len},
            {"max_num_seqs", options.max_num_seqs},
            {"max_num_batched_tokens", options.max_num_batched_tokens},
            {"enable_prefix_caching", options.enable_prefix_caching},
            {"enable_chunked_prefill", options.enable_chunked_prefill},
            {"arguments", given}}},
          {"vllm_env", Json::object()},
          {"system_env", {{"processors", std::thread::hardware_concurrency()}}}};
}

MetricLabels cache_labels(const ServeSettings& settings, const EngineOptions& options,
                          const ServeModel& model, std::int64_t blocks) {
  const auto word = [](bool value) { return value ? "True" : "False"; };
  return {{"block_size", std::to_string(model.block_size())},
          {"cache_dtype", settings.device.kv_cache_dtype},
          {"enable_prefix_caching", word(options.enable_prefix_caching)},
          {"gpu_memory_utilization",
           settings.gpu_memory_utilization ? fmt::format("{}", *settings.gpu_memory_utilization) : "None"},
          {"kv_cache_memory_bytes", std::to_string(settings.kv_cache_memory_bytes)},
          {"num_gpu_blocks", std::to_string(blocks)},
          {"num_gpu_blocks_override",
           settings.num_gpu_blocks_override > 0 ? std::to_string(settings.num_gpu_blocks_override) : "None"},
          {"prefix_caching_hash_algo", "xxhash"}};
}

void print_defaults(const SamplingDefaults& defaults) {
  std::vector<std::string> parts;
  const auto add = [&](const char* name, const auto& value) {
    if (value) parts.push_back(fmt::format("'{}': {}", name, *value));
  };
  add("temperature", defaults.temperature);
  add("top_p", defaults.top_p);
  add("min_p", defaults.min_p);
  add("repetition_penalty", defaults.repetition_penalty);
  add("top_k", defaults.top_k);
  add("max_tokens", defaults.max_new_tokens);
  if (parts.empty()) return;
  server_warning(
      "Default sampling parameters come from the model's generation_config.json: {{{}}}; "
      "--generation-config vllm turns that off",
      fmt::join(parts, ", "));
}

std::string listening_text(const ServeSettings& settings, std::uint16_t port) {
  if (!settings.http.unix_socket.empty()) return "unix socket " + settings.http.unix_socket;
  return fmt::format("{}://{}:{}", settings.http.ssl_certfile.empty() ? "http" : "https", settings.http.host,
                     port);
}

// Everything that lives while the server runs, in the order of construction; taken down in shut_down().
class RunningServer {
 public:
  explicit RunningServer(const ServeSettings& settings);
  // Until a signal comes or the engine dies; the exit code.
  int run(ShutdownSignals& signals);

 private:
  std::unique_ptr<HttpServer> make_http_server();
  void shut_down(double drain_seconds);

  const ServeSettings& settings_;
  const Stopwatch since_start_;
  // Made first, so that a port in use is known before the weights are loaded; started last.
  std::unique_ptr<HttpServer> http_;
  ServeModel model_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<Engine> engine_;
  ServedModel served_;
  std::unique_ptr<WorkerPool> workers_;
  std::unique_ptr<OpenAiService> service_;
  std::unique_ptr<ApiServer> api_;
};

std::unique_ptr<HttpServer> RunningServer::make_http_server() {
  HttpServerOptions options = settings_.http;
  options.error_page = http_error_page;
  return std::make_unique<HttpServer>(
      options, [this](std::shared_ptr<HttpExchange> exchange) { api_->handle(std::move(exchange)); },
      [this](const HttpRequest& request, int status, std::size_t bytes, double seconds) {
        api_->on_done(request, status, bytes, seconds);
      });
}

RunningServer::RunningServer(const ServeSettings& settings)
    : settings_(settings), http_(make_http_server()), model_(settings) {
  EngineOptions options = settings.engine;
  const Stopwatch engine_watch;
  server_info(
      "Initializing a bise engine ({}) with config: model='{}', tokenizer='{}', dtype=bfloat16, "
      "kv_cache_dtype={}, device={}, enable_prefix_caching={}, enable_chunked_prefill={}",
      api_version(), settings.model, settings.tokenizer.empty() ? settings.model : settings.tokenizer,
      settings.device.kv_cache_dtype, settings.device.device, options.enable_prefix_caching,
      options.enable_chunked_prefill);
  std::unique_ptr<ModelRunner> runner = model_.make_runner(options);
  if (options.enable_chunked_prefill)
    server_info("Chunked prefill is enabled with max_num_batched_tokens={}.", options.max_num_batched_tokens);
  const std::int64_t blocks = runner->num_blocks();
  // The engine may shorten max_model_len; only then are the buckets known.
  engine_ = std::make_unique<Engine>(std::move(runner), options,
                                     [this](std::int64_t tokens) { metrics_->on_step(tokens); });
  options = engine_->options();
  served_ = model_.served_model(options.max_model_len);
  served_.system_fingerprint = fingerprint(settings, served_);
  metrics_ = std::make_unique<Metrics>(MetricsOptions{served_.names.front(), options.max_model_len,
                                                      cache_labels(settings, options, model_, blocks)});
  server_info("init engine (profile, create kv cache, warmup model) took {:.2f} seconds",
              engine_watch.seconds());
  server_info("Supported tasks: ['generate']");
  print_defaults(served_.defaults);

  // Two at least: one long text being tokenized must not hold up all others.
  workers_ = std::make_unique<WorkerPool>(std::clamp<int>(std::thread::hardware_concurrency() / 2, 2, 8));
  service_ = std::make_unique<OpenAiService>(served_, *engine_, *workers_, *metrics_);
  RouteOptions routes;
  routes.version = api_version();
  routes.server_info = json_text(settings_json(settings, options, served_));
  routes.dev_mode = environment("VLLM_SERVER_DEV_MODE") == "1";
  routes.enable_server_load_tracking = settings.enable_server_load_tracking;
  api_ = std::make_unique<ApiServer>(
      settings.server, make_routes(routes, *service_, *engine_, *workers_, *metrics_), metrics_->http());
}

int RunningServer::run(ShutdownSignals& signals) {
  server_info("Starting bise server (vLLM's API) on {}", listening_text(settings_, http_->port()));
  server_info("Available routes are:");
  for (const Route& route : api_->router().routes())
    server_info("Route: {}, Methods: {}", route.path, fmt::join(route.methods, ", "));
  uvicorn_info(fmt::format("Started server process [{}]", ::getpid()));
  uvicorn_info("Waiting for application startup.");
  http_->start();
  uvicorn_info("Application startup complete.");
  server_info("Ready after {:.2f} seconds", since_start_.seconds());

  std::optional<StatsLogger> stats;
  if (!settings_.disable_log_stats) stats.emplace(*engine_, *metrics_, model_.device_word());
  int signal = 0;
  while (signal == 0 && engine_->healthy()) signal = signals.wait(0.25);
  stats.reset();
  if (signal == 0) {
    server_error("The engine has failed; shutting down");
    shut_down(0);
    return 70;
  }
  uvicorn_info("Shutting down");
  if (settings_.shutdown_timeout > 0)
    uvicorn_info(fmt::format("Waiting up to {} s for running requests", settings_.shutdown_timeout));
  shut_down(settings_.shutdown_timeout);
  uvicorn_info("Application shutdown complete.");
  uvicorn_info(fmt::format("Finished server process [{}]", ::getpid()));
  return 0;
}

// The HTTP server stops to accept while the engine drains; what the engine aborts at the end still gets its
// last chunk, for which the HTTP server waits a little longer.
void RunningServer::shut_down(double drain_seconds) {
  std::thread closing([&] { http_->stop(drain_seconds + kLastAnswersSeconds); });
  engine_->stop(drain_seconds);
  closing.join();
  workers_.reset();
  http_.reset();
}

}  // namespace

int run_serve(const Arguments& arguments) {
  // Before any thread starts.
  ShutdownSignals signals;
  std::optional<ServeSettings> settings = parse_serve_flags(arguments);
  if (!settings) return 0;
  if (settings->server.api_keys.empty())
    if (std::string key = environment("VLLM_API_KEY"); !key.empty()) settings->server.api_keys.push_back(key);
  // Requests name the model as the user did, wherever its files lie.
  if (settings->served_model_names.empty()) settings->served_model_names = {settings->model};
  settings->model = model_folder(settings->model).string();
  use_server_log();
  print_beginning(*settings);
  RunningServer server(*settings);
  return server.run(signals);
}

}  // namespace bise
