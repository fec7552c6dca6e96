#include "tests/net/raw_client.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <stdexcept>

#include "base/clock.h"

namespace bise {

RawClient::RawClient(std::uint16_t port, double timeout) {
  descriptor_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(descriptor_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    throw std::runtime_error(fmt::format("connect: {}", std::strerror(errno)));
  }
  prepare(timeout);
}

RawClient::RawClient(const std::string& unix_path, double timeout) {
  descriptor_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  unix_path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (::connect(descriptor_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    throw std::runtime_error(fmt::format("connect: {}", std::strerror(errno)));
  }
  prepare(timeout);
}

void RawClient::prepare(double timeout) {
  timeval limit = {static_cast<time_t>(timeout), static_cast<suseconds_t>(timeout * 1e6) % 1000000};
  ::setsockopt(descriptor_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setsockopt(descriptor_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
}

RawClient::~RawClient() {
  close();
}

bool RawClient::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

void RawClient::end_sending() {
  ::shutdown(descriptor_, SHUT_WR);
}

void RawClient::close() {
  if (descriptor_ >= 0) ::close(descriptor_);
  descriptor_ = -1;
}

void RawClient::reset() {
  const linger now = {1, 0};
  ::setsockopt(descriptor_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close();
}

std::string RawClient::read_some() {
  char buffer[16384];
  const ssize_t got = ::recv(descriptor_, buffer, sizeof buffer, 0);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) ended_ = true;
  return got > 0 ? std::string(buffer, static_cast<std::size_t>(got)) : std::string();
}

std::string RawClient::read_until(std::string_view mark) {
  std::string all;
  while (all.find(mark) == all.npos) {
    const std::string part = read_some();
    if (part.empty()) break;
    all += part;
  }
  return all;
}

std::string RawClient::read_to_end() {
  std::string all;
  for (std::string part = read_some(); !part.empty(); part = read_some()) all += part;
  return all;
}

std::vector<int> statuses(std::string_view bytes) {
  std::vector<int> found;
  while (bytes.starts_with("HTTP/1.1 ")) {
    found.push_back(std::stoi(std::string(bytes.substr(9, 3))));
    const std::size_t head = bytes.find("\r\n\r\n");
    if (head == bytes.npos) break;
    const std::size_t field = bytes.substr(0, head).find("content-length: ");
    const std::size_t body = field == bytes.npos ? 0 : std::stoul(std::string(bytes.substr(field + 16, 12)));
    bytes.remove_prefix(std::min(bytes.size(), head + 4 + body));
  }
  return found;
}

TestServer::TestServer(const Adjust& adjust) {
  HttpServerOptions options;
  options.host = "127.0.0.1";
  options.port = 0;
  if (adjust) adjust(options);
  server_ = std::make_unique<HttpServer>(
      options, [this](std::shared_ptr<HttpExchange> exchange) { handle(exchange); },
      [this](const HttpRequest& request, int status, std::size_t bytes, double) {
        const std::lock_guard lock(mutex_);
        done_.push_back({fmt::format("{} {} {}", request.method, request.path, status), bytes});
      });
  server_->start();
}

TestServer::~TestServer() {
  server_->stop(0);
  for (std::thread& producer : producers_) producer.join();
}

std::string TestServer::url(const std::string& path) const {
  return fmt::format("http://127.0.0.1:{}{}", port(), path);
}

void TestServer::route(const std::string& path, HttpServer::Handler handler) {
  const std::lock_guard lock(mutex_);
  routes_[path] = std::move(handler);
}

void TestServer::handle(const std::shared_ptr<HttpExchange>& exchange) {
  const HttpRequest& request = exchange->request();
  HttpServer::Handler handler;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = routes_.find(request.path); found != routes_.end()) handler = found->second;
    if (request.path == "/hold") held_.push_back(exchange);
  }
  if (handler) return handler(exchange);
  if (request.path == "/hold" || request.path == "/drop") return;
  if (request.path == "/throw") throw std::runtime_error("thrown by the test's handler");
  if (request.path == "/stream") {
    const int frames = std::stoi(request.query);
    exchange->start_stream(200, {{"content-type", "text/event-stream; charset=utf-8"}});
    const std::lock_guard lock(mutex_);
    producers_.emplace_back([exchange, frames] {
      for (int i = 0; i < frames && !exchange->disconnected(); ++i) {
        exchange->write(fmt::format("data: {}\n\n", i));
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
      if (!exchange->disconnected()) exchange->finish();
    });
    return;
  }
  exchange->respond(
      {200,
       {{"content-type", "text/plain"}},
       fmt::format("{} {} {} {}", request.method, request.path, request.query, request.body.size())});
}

std::shared_ptr<HttpExchange> TestServer::wait_held(std::size_t index, double timeout) {
  std::shared_ptr<HttpExchange> found;
  eventually(
      [&] {
        const std::lock_guard lock(mutex_);
        if (held_.size() <= index) return false;
        found = held_[index];
        return true;
      },
      timeout);
  return found;
}

std::vector<TestServer::Done> TestServer::done() {
  const std::lock_guard lock(mutex_);
  return done_;
}

bool TestServer::wait_done(std::size_t count, double timeout) {
  return eventually([&] { return done().size() >= count; }, timeout);
}

bool eventually(const std::function<bool()>& condition, double timeout) {
  for (const Stopwatch watch; watch.seconds() < timeout;) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return condition();
}

}  // namespace bise
