// An asynchronous HTTP/1.1 server: keep-alive, pipelining in order, chunked responses, over TCP, TLS or a
// unix socket. A few I/O threads serve any number of connections; no thread belongs to a connection.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "net/http_message.h"

namespace bise {

struct HttpServerOptions {
  std::string host = "0.0.0.0";
  std::uint16_t port = 8000;         // 0: any free one
  std::string unix_socket;           // path; replaces host and port
  unsigned unix_socket_mode = 0666;  // permissions of that file: anyone on the machine, as a port is
  int threads = 1;
  std::size_t max_body_bytes = std::size_t{64} << 20;    // more: 413
  std::size_t max_header_bytes = std::size_t{64} << 10;  // more: 431
  int max_headers = 256;
  double read_timeout = 60;   // s for a whole request once it began; then 408 and close
  double idle_timeout = 75;   // s between requests
  double write_timeout = 60;  // s without progress of a client that does not read; then close
  std::size_t max_unsent_bytes = std::size_t{16} << 20;  // of one stream; more: the connection is closed
  std::size_t max_connections = 0;                       // 0: as many as files can be open
  // TLS when certfile is given (PEM).
  std::string ssl_certfile, ssl_keyfile, ssl_ca_certs, ssl_ciphers;
  bool ssl_require_client_cert = false;
  // The answer to a request that never reaches the handler (400, 408, 413, 417, 431, 501); by default the
  // reason as plain text. Called on an I/O thread.
  std::function<HttpResponse(int status, std::string_view reason)> error_page;
};

// One request and its answer. All methods may be called from any thread, at once or later, also after the
// connection is gone (then they do nothing). Answer exactly once: respond(), or start_stream() ... finish().
// Dropping the last reference unanswered sends 500.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;

  virtual const HttpRequest& request() const = 0;
  // The request's body, moved out: a long answer need not keep it. One thread only.
  virtual std::string take_body() = 0;
  virtual void respond(HttpResponse response) = 0;

  virtual void start_stream(int status, HttpHeaders headers) = 0;
  // Queues `data` and returns. Pieces that pile up while the socket is busy leave in one write.
  virtual void write(std::string data) = 0;
  virtual void finish() = 0;
  // Bytes queued and not yet given to the kernel: a producer may join its pieces while this is not 0.
  virtual std::size_t unsent_bytes() const = 0;

  // `callback` runs once, on an I/O thread, when the client is gone before the answer was finished; at once,
  // on this thread, when it already is. Setting another replaces it; finishing the answer drops it.
  // A client that closes its sending side counts as gone, as with uvicorn.
  virtual void on_disconnect(std::function<void()> callback) = 0;
  virtual bool disconnected() const = 0;
};

class HttpServer {
 public:
  // Called on an I/O thread with each whole request: it must not block. An exception becomes 500.
  using Handler = std::function<void(std::shared_ptr<HttpExchange>)>;
  // Called on an I/O thread when an answer has been sent or given up: for the access log and the HTTP
  // metrics. `status` is 499 when the client left before there was one; `bytes` went to the kernel, header
  // included; `seconds` run from the first byte of the request. The request's body may be gone by then.
  using OnDone = std::function<void(const HttpRequest&, int status, std::size_t bytes, double seconds)>;

  // Binds and listens; throws Error naming the address when that fails. Serving begins with start().
  HttpServer(const HttpServerOptions& options, Handler handler, OnDone on_done = {});
  ~HttpServer();  // stop(0)

  void start();
  std::uint16_t port() const;
  std::size_t connections() const;
  // Accepts no more, closes idle connections, waits up to `drain_seconds` for answers in progress, then
  // closes everything and joins the threads. Not from a handler or a callback.
  void stop(double drain_seconds);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace bise
