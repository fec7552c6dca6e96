// What stands between the HTTP server and the handlers: keys, CORS, root path, request ids, dispatch with 404
// and 405, and after the answer the access log and the HTTP metrics. Any thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "net/http_server.h"
#include "serve/api_keys.h"
#include "serve/cors.h"
#include "serve/http_metrics.h"
#include "serve/routes.h"

namespace bise {

struct ServerOptions {
  std::vector<std::string> api_keys;
  bool api_key_guards_all = false;
  CorsOptions cors;
  std::string root_path;  // removed from the front of paths that have it, for a proxy that leaves it there
  bool enable_request_id_headers = false;
  bool enable_log_requests = false;
  std::size_t max_log_len = 2048;  // bytes of a logged body
  bool access_log = true;
  std::vector<std::string> unlogged_paths;  // left out of the access log
};

class ApiServer {
 public:
  // `metrics` outlives the server.
  ApiServer(ServerOptions options, Router router, HttpMetrics& metrics);

  // HttpServer::Handler. Handlers may throw ApiError.
  void handle(std::shared_ptr<HttpExchange> exchange) const;
  // HttpServer::OnDone.
  void on_done(const HttpRequest& request, int status, std::size_t bytes, double seconds) const;

  const Router& router() const { return router_; }

 private:
  std::string_view route_path(const HttpRequest& request) const;
  void dispatch(const std::shared_ptr<HttpExchange>& exchange) const;
  bool redirect_to_route(const HttpRequest& request, std::string_view path, HttpExchange& exchange) const;

  ServerOptions options_;
  Router router_;
  ApiKeys keys_;
  HttpMetrics& metrics_;
};

// {"detail": "Not Found"} and the like, as FastAPI answers what no handler sees.
HttpResponse detail_response(int status);
HttpResponse json_response(std::string body, int status = 200);
// HttpServerOptions::error_page: {"error": {...}} for requests that never reach a handler.
HttpResponse http_error_page(int status, std::string_view reason);

}  // namespace bise
