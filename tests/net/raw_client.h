// A socket that says exactly the bytes it is told, and a server that answers by path: for the tests of
// src/net.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "net/http_server.h"

namespace bise {

// Blocking; every read ends after `timeout` seconds at the latest.
class RawClient {
 public:
  explicit RawClient(std::uint16_t port, double timeout = 5);
  explicit RawClient(const std::string& unix_path, double timeout = 5);
  ~RawClient();
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;

  bool send(std::string_view bytes);  // false: the other side is gone
  void end_sending();                 // half-close
  void close();
  void reset();  // close with RST
  std::string read_some();
  std::string read_until(std::string_view mark);  // what came by then, the mark included
  std::string read_to_end();
  bool at_end() const { return ended_; }  // EOF or reset was seen (not a timeout)
  int descriptor() const { return descriptor_; }

 private:
  void prepare(double timeout);
  int descriptor_ = -1;
  bool ended_ = false;
};

// The status codes of the answers in `bytes`, one after another; bodies are told apart by their lengths.
std::vector<int> statuses(std::string_view bytes);

// A server on a free port of 127.0.0.1:
//   /echo    "METHOD PATH QUERY BODYSIZE"       /throw  the handler throws
//   /hold    kept in held until a test answers  /drop   the handler forgets it
//   /stream  frames from a producer's thread, as many as the query says
class TestServer {
 public:
  using Adjust = std::function<void(HttpServerOptions&)>;
  explicit TestServer(const Adjust& adjust = {});
  ~TestServer();

  std::uint16_t port() const { return server_->port(); }
  std::string url(const std::string& path) const;
  HttpServer& server() { return *server_; }
  void route(const std::string& path, HttpServer::Handler handler);
  std::shared_ptr<HttpExchange> wait_held(std::size_t index = 0, double timeout = 5);

  struct Done {
    std::string line;  // "GET /echo 200"
    std::size_t bytes;
  };
  std::vector<Done> done();
  // True once `count` answers are done.
  bool wait_done(std::size_t count, double timeout = 5);

 private:
  void handle(const std::shared_ptr<HttpExchange>& exchange);

  std::mutex mutex_;
  std::map<std::string, HttpServer::Handler> routes_;
  std::vector<std::shared_ptr<HttpExchange>> held_;
  std::vector<Done> done_;
  std::vector<std::thread> producers_;
  std::unique_ptr<HttpServer> server_;
};

// Polls until `condition` holds; false after `timeout` seconds.
bool eventually(const std::function<bool()>& condition, double timeout = 5);

}  // namespace bise
