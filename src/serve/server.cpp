#include "serve/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <random>
#include <utility>

#include "serve/api_error.h"
#include "serve/server_log.h"

namespace bise {
namespace {

// Passes everything on and adds fields to the head of the answer.
class ExchangeWithHeaders : public HttpExchange {
 public:
  ExchangeWithHeaders(std::shared_ptr<HttpExchange> inner, HttpHeaders headers)
      : inner_(std::move(inner)), headers_(std::move(headers)) {}

  const HttpRequest& request() const override { return inner_->request(); }
  std::string take_body() override { return inner_->take_body(); }
  void respond(HttpResponse response) override {
    add_to(response.headers);
    inner_->respond(std::move(response));
  }
  void start_stream(int status, HttpHeaders headers) override {
    add_to(headers);
    inner_->start_stream(status, std::move(headers));
  }
  void write(std::string data) override { inner_->write(std::move(data)); }
  void finish() override { inner_->finish(); }
  std::size_t unsent_bytes() const override { return inner_->unsent_bytes(); }
  void on_disconnect(std::function<void()> callback) override { inner_->on_disconnect(std::move(callback)); }
  bool disconnected() const override { return inner_->disconnected(); }

 private:
  void add_to(HttpHeaders& headers) const {
    for (const auto& [name, value] : headers_.fields()) headers.add(name, value);
  }

  std::shared_ptr<HttpExchange> inner_;
  HttpHeaders headers_;
};

std::string random_id() {
  thread_local std::mt19937_64 random{std::random_device{}()};
  return fmt::format("{:016x}{:016x}", random(), random());
}

// Text of a client's as it may stand in a log: on one line, without control characters or quotes.
std::string printable(std::string_view text) {
  std::string result;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F || c == '"' || c == '%') {
      fmt::format_to(std::back_inserter(result), "%{:02X}", byte);
    } else {
      result += c;
    }
  }
  return result;
}

std::size_t content_length(const HttpRequest& request) {
  const std::string_view field = request.headers.find("Content-Length").value_or("");
  std::size_t length = 0;
  std::from_chars(field.data(), field.data() + field.size(), length);
  return length;
}

// A label's values must stay few, whatever clients send.
std::string method_label(const std::string& method) {
  for (const char* known : {"GET", "POST", "OPTIONS", "HEAD", "PUT", "DELETE", "PATCH"})
    if (method == known) return method;
  return "other";
}

// As vLLM excludes them: what probes and scrapers ask for.
bool counted(std::string_view handler) {
  for (const std::string_view path : {"/metrics", "/health", "/load", "/ping", "/version", "/server_info"})
    if (handler == path) return false;
  return true;
}

}  // namespace

HttpResponse json_response(std::string body, int status) {
  return {status, {{"content-type", "application/json"}}, std::move(body)};
}

HttpResponse detail_response(int status) {
  return json_response(fmt::format(R"({{"detail":"{}"}})", status_phrase(status)), status);
}

HttpResponse http_error_page(int status, std::string_view reason) {
  return ApiError(status, std::string(status_phrase(status)), std::string(reason)).response();
}

ApiServer::ApiServer(ServerOptions options, Router router, HttpMetrics& metrics)
    : options_(std::move(options)),
      router_(std::move(router)),
      keys_(options_.api_keys, options_.api_key_guards_all),
      metrics_(metrics) {}

std::string_view ApiServer::route_path(const HttpRequest& request) const {
  std::string_view path = request.path;
  const std::string& root = options_.root_path;
  if (!root.empty() && path.starts_with(root) && (path.size() == root.size() || path[root.size()] == '/'))
    path.remove_prefix(root.size());
  return path.empty() ? "/" : path;
}

void ApiServer::handle(std::shared_ptr<HttpExchange> exchange) const {
  const HttpRequest& request = exchange->request();
  HttpHeaders headers = cors_headers(options_.cors, request);
  if (options_.enable_request_id_headers) {
    const auto given = request.headers.find("X-Request-Id");
    headers.set("x-request-id", given ? std::string(*given) : random_id());
  }
  if (is_preflight(request)) return exchange->respond(preflight_response(options_.cors, request));
  if (!headers.fields().empty())
    exchange = std::make_shared<ExchangeWithHeaders>(std::move(exchange), std::move(headers));
  try {
    dispatch(exchange);
  } catch (const ApiError& error) {
    exchange->respond(error.response());
  }
}

void ApiServer::dispatch(const std::shared_ptr<HttpExchange>& exchange) const {
  const HttpRequest& request = exchange->request();
  const std::string_view path = route_path(request);
  if (!keys_.admits(request, path)) {
    HttpResponse refused = json_response(R"({"error":"Unauthorized"})", 401);
    refused.headers.set("www-authenticate", "Bearer");
    return exchange->respond(std::move(refused));
  }
  const Router::Match match = router_.find(request.method, path);
  if (match.route != nullptr) {
    if (options_.enable_log_requests && request.method == "POST") {
      const std::string_view body(request.body);
      server_info("Received request {}: {} {}, {} bytes from {}: {}",
                  printable(request.headers.find("X-Request-Id").value_or("-")), request.method,
                  printable(path), body.size(), request.remote,
                  printable(body.substr(0, options_.max_log_len)));
    }
    return match.route->handle(exchange);
  }
  if (!match.allow.empty()) {
    HttpResponse refused = detail_response(405);
    refused.headers.set("allow", match.allow);
    return exchange->respond(std::move(refused));
  }
  if (redirect_to_route(request, path, *exchange)) return;
  exchange->respond(detail_response(404));
}

// FastAPI sends a path with a slash too many to the one without. Nothing of the client's goes into the field.
bool ApiServer::redirect_to_route(const HttpRequest& request, std::string_view path,
                                  HttpExchange& exchange) const {
  if (path.size() < 2 || !path.ends_with('/')) return false;
  const Route* route = router_.find(request.method, path.substr(0, path.size() - 1)).route;
  if (route == nullptr || route->path.find('{') != std::string::npos) return false;
  const bool has_root = path.size() < request.path.size();
  exchange.respond({307, {{"location", (has_root ? options_.root_path : "") + route->path}}, ""});
  return true;
}

void ApiServer::on_done(const HttpRequest& request, int status, std::size_t bytes, double seconds) const {
  const std::string_view path = route_path(request);
  if (const std::string_view handler = router_.handler_name(path); counted(handler))
    metrics_.on_done(std::string(handler), method_label(request.method), status, content_length(request),
                     bytes, seconds);
  if (!options_.access_log ||
      std::ranges::find(options_.unlogged_paths, path) != options_.unlogged_paths.end())
    return;
  const std::string query = request.query.empty() ? "" : "?" + printable(request.query);
  uvicorn_info(fmt::format("{} - \"{} {}{} HTTP/1.1\" {} {}", request.remote, printable(request.method),
                           printable(request.path), query, status, status_phrase(status)));
}

}  // namespace bise
