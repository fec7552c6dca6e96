#include "serve/server_routes.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "base/error.h"
#include "base/json.h"
#include "serve/api_error.h"
#include "serve/server.h"
#include "serve/server_log.h"

namespace bise {
namespace {

using Exchange = std::shared_ptr<HttpExchange>;
using Handler = std::function<void(Exchange)>;

// While an exchange made by this lives, `load` is one higher.
Handler counting(std::shared_ptr<std::atomic<std::int64_t>> load, bool enabled, Handler handler) {
  if (!enabled) return handler;
  return [load, handler = std::move(handler)](Exchange exchange) {
    load->fetch_add(1);
    HttpExchange* const target = exchange.get();
    const auto release = [load, exchange = std::move(exchange)](HttpExchange*) { load->fetch_sub(1); };
    handler(Exchange(target, release));
  };
}

// SageMaker's one route: what the body asks for is told by its shape.
void invoke(OpenAiService& service, const Exchange& exchange) {
  try {
    const Json body = parse_json(exchange->request().body, "body");
    if (body.is_object() && body.contains("messages")) return service.chat_completions(exchange);
    if (body.is_object() && body.contains("prompt")) return service.completions(exchange);
    exchange->respond(
        bad_request("Cannot find suitable handler for request. Expected \"messages\" (chat completion) or "
                    "\"prompt\" (completion)")
            .response());
  } catch (const Error& error) {
    exchange->respond(validation_error(error.what(), "body").response());
  } catch (const ApiError& error) {
    exchange->respond(error.response());
  }
}

void add_probes(Router& router, const RouteOptions& options, const Engine& engine, const Metrics& metrics,
                std::shared_ptr<std::atomic<std::int64_t>> load) {
  const Handler health = [&engine](Exchange exchange) {
    exchange->respond({engine.healthy() ? 200 : 503, {}, ""});
  };
  router.add("/health", {"GET"}, health);
  router.add("/ping", {"GET", "POST"}, health);
  router.add("/version", {"GET"}, [version = Json{{"version", options.version}}](Exchange exchange) {
    exchange->respond(json_response(json_text(version)));
  });
  router.add("/load", {"GET"}, [load](Exchange exchange) {
    exchange->respond(json_response(fmt::format(R"({{"server_load":{}}})", load->load())));
  });
  router.add("/metrics", {"GET"}, [&engine, &metrics](Exchange exchange) {
    exchange->respond(
        {200, {{"content-type", "text/plain; version=0.0.4; charset=utf-8"}}, metrics.text(engine.stats())});
  });
}

void add_development_routes(Router& router, const RouteOptions& options, Engine& engine) {
  router.add("/reset_prefix_cache", {"POST"}, [&engine](Exchange exchange) {
    const bool success = engine.reset_prefix_cache();
    server_info("Resetting prefix cache: {}", success ? "done" : "refused, requests hold blocks");
    exchange->respond(json_response(fmt::format(R"({{"success":{}}})", success)));
  });
  router.add("/server_info", {"GET"},
             [info = options.server_info](Exchange exchange) { exchange->respond(json_response(info)); });
  for (const char* path : {"/sleep", "/wake_up", "/is_sleeping", "/collective_rpc"})
    router.add(path, {"GET", "POST"}, [path = std::string(path)](Exchange exchange) {
      exchange->respond(not_implemented(fmt::format("bise has no {}", path)).response());
    });
}

// What vLLM serves and this server does not: 501 for other shapes of text generation, 404, as a vLLM without
// such a model answers, for the rest.
void add_refusals(Router& router) {
  const auto refuse = [&](int status, std::vector<std::string> methods, const char* path, const char* what) {
    const std::string message = fmt::format(
        "bise has no {}: {} is not served. Use /v1/chat/completions or "
        "/v1/completions",
        what, path);
    const ApiError error = status == 501 ? not_implemented(message) : ApiError(404, "NotFoundError", message);
    router.add(path, std::move(methods), [error](Exchange exchange) { exchange->respond(error.response()); });
  };
  refuse(501, {"POST"}, "/v1/chat/completions/batch", "batches of conversations");
  refuse(501, {"POST"}, "/v1/responses", "Responses API");
  refuse(501, {"GET"}, "/v1/responses/{response_id}", "Responses API");
  refuse(501, {"POST"}, "/v1/responses/{response_id}/cancel", "Responses API");
  refuse(501, {"POST"}, "/v1/messages", "Messages API");
  refuse(501, {"POST"}, "/v1/messages/count_tokens", "Messages API");
  for (const char* path : {"/v1/embeddings", "/v2/embed", "/pooling", "/classify", "/score", "/v1/score",
                           "/rerank", "/v1/rerank", "/v2/rerank"})
    refuse(404, {"POST"}, path, "pooling models");
  for (const char* path : {"/v1/audio/transcriptions", "/v1/audio/translations"})
    refuse(404, {"POST"}, path, "audio models");
  for (const char* path : {"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
    refuse(404, {"POST"}, path, "LoRA adapters");
}

}  // namespace

Router make_routes(const RouteOptions& options, OpenAiService& service, Engine& engine, WorkerPool& workers,
                   const Metrics& metrics) {
  Router router;
  auto load = std::make_shared<std::atomic<std::int64_t>>(0);
  add_probes(router, options, engine, metrics, load);
  const auto inference = [&](Handler handler) {
    return counting(load, options.enable_server_load_tracking, std::move(handler));
  };
  router.add("/v1/models", {"GET"}, [&service](Exchange exchange) { service.models(std::move(exchange)); });
  router.add("/v1/chat/completions", {"POST"},
             inference([&service](Exchange exchange) { service.chat_completions(std::move(exchange)); }));
  router.add("/v1/completions", {"POST"},
             inference([&service](Exchange exchange) { service.completions(std::move(exchange)); }));
  router.add("/invocations", {"POST"}, inference([&service, &workers](Exchange exchange) {
               workers.post([&service, exchange] { invoke(service, exchange); });
             }));
  router.add("/tokenize", {"POST"}, [&service](Exchange exchange) { service.tokenize(std::move(exchange)); });
  router.add("/detokenize", {"POST"},
             [&service](Exchange exchange) { service.detokenize(std::move(exchange)); });
  if (options.dev_mode) add_development_routes(router, options, engine);
  add_refusals(router);
  return router;
}

}  // namespace bise
