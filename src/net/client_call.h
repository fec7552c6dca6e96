// One call of the HTTP client, from its address to its answer: a coroutine on the client's I/O thread.
// Inside src/net only.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "net/http_client.h"
#include "net/response_parser.h"
#include "net/transport.h"
#include "net/url.h"

namespace bise {

class ClientCall;

inline std::chrono::steady_clock::duration in_seconds(double seconds) {
  return std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(seconds));
}

// What the calls of a client share; I/O thread only, but for `options`.
struct ClientShared {
  struct Idle {
    std::unique_ptr<Transport> transport;
    std::chrono::steady_clock::time_point since;
  };
  // A kept connection that is still quiet, or null.
  std::unique_ptr<Transport> take_idle(const std::string& key);
  void keep_idle(const std::string& key, std::unique_ptr<Transport> transport);
  void drop_old();

  HttpClientOptions options;
  std::optional<Url> proxy;
  std::unique_ptr<TlsContext> tls;
  bool closing = false;                                    // the client is being destroyed
  std::unordered_map<std::string, std::deque<Idle>> idle;  // by ClientCall::pool_key(); newest last
  std::unordered_map<std::uint64_t, std::shared_ptr<ClientCall>> calls;
};

class ClientCall : public std::enable_shared_from_this<ClientCall> {
 public:
  // Throws Error when the call is malformed. Any thread; the rest belongs to the I/O thread.
  ClientCall(ClientShared& shared, boost::asio::io_context& context, std::uint64_t id, HttpCall call,
             HttpClient::OnDone on_done);

  void start();
  void check_deadlines();
  // Ends the call now, if it is not at its end already.
  void fail(HttpFailure failure, const std::string& error);

 private:
  using Clock = std::chrono::steady_clock;
  template <class T>
  using Awaitable = boost::asio::awaitable<T>;
  // Thrown within the coroutine.
  struct Failed {
    HttpFailure kind;
    std::string text;
  };

  Awaitable<void> run();
  Awaitable<void> exchange();      // one request, one answer
  Awaitable<bool> send_request();  // false: the other side closed
  Awaitable<void> receive();
  Awaitable<std::size_t> read_some();  // 0: the other side closed
  Awaitable<bool> write_all(std::string_view bytes);

  // client_connect.cpp
  bool through_proxy() const;
  std::string pool_key() const;
  Awaitable<void> connect();
  Awaitable<void> connect_to(const std::string& host, std::uint16_t port);
  Awaitable<void> open_tunnel();

  std::string request_head() const;
  bool redirect();  // prepares the next request, if the answer asks for one
  bool wants_redirect() const;
  void take_header();
  void take_body(std::string_view bytes);
  void ensure_running() const;
  void touch();  // something moved: the idle time begins anew
  void close_sockets();
  void finish();
  double seconds() const;

  ClientShared& shared_;
  boost::asio::io_context& context_;
  const std::uint64_t id_;
  HttpCall call_;
  HttpClient::OnDone on_done_;
  Url url_;
  int redirects_left_;
  const Clock::time_point began_ = Clock::now();
  // The end of the phase in progress, of one attempt to connect, of all; max(): none.
  Clock::time_point connect_deadline_ = Clock::time_point::max();
  Clock::time_point attempt_deadline_ = Clock::time_point::max();
  Clock::time_point idle_deadline_ = Clock::time_point::max();
  Clock::time_point total_deadline_ = Clock::time_point::max();

  std::unique_ptr<Socket> connecting_;
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<ResponseParser> parser_;
  std::string buffer_, input_;
  std::size_t discarded_ = 0;
  bool deliver_ = false;  // the answer being read is the last
  bool finished_ = false;
  HttpResult result_;
};

}  // namespace bise
