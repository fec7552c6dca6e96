// One client's connection: reads requests one after another, hands each to the handler, sends the answers in
// order. Inside src/net only. Lives on the I/O thread of its loop; only Answer is touched from elsewhere.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "net/answer.h"
#include "net/http_server.h"
#include "net/request_parser.h"
#include "net/transport.h"

namespace bise {

class Connection;

// What all connections of a server share. Outlives them.
struct ServerShared {
  ServerShared(const HttpServerOptions& server_options, HttpServer::Handler on_request,
               HttpServer::OnDone on_request_done)
      : options(server_options), handler(std::move(on_request)), on_done(std::move(on_request_done)) {}

  HttpServerOptions options;
  HttpServer::Handler handler;
  HttpServer::OnDone on_done;
  std::unique_ptr<TlsContext> tls;  // null: plain
  std::atomic<std::size_t> connections = 0;
  std::atomic<bool> draining = false;
};

// One I/O thread: its event loop and the connections on it. A sweep some times a second looks for those
// whose time is up, so that a connection needs no timer of its own.
struct ServerLoop {
  explicit ServerLoop(ServerShared& server) : shared(server), sweep(context) {}
  void start_sweeping();
  void drain();      // connections without a request in progress close, others after it
  void close_all();  // and ends the sweep

  ServerShared& shared;
  boost::asio::io_context context{1};
  boost::asio::steady_timer sweep;
  bool closing = false;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(ServerLoop& loop, std::unique_ptr<Transport> transport, std::string remote);

  void start();
  void drain();
  void close();
  void check_deadline();

 private:
  // kHandshake: TLS. kIdle: between requests. kReading: within one. kAnswering: until the answer is sent.
  // kLingering: all is said; reads and drops what the client still sends, so that the kernel does not reset
  // the connection before the client has read the answer.
  enum class Phase { kHandshake, kIdle, kReading, kAnswering, kLingering, kClosed };
  using Clock = std::chrono::steady_clock;

  void read();
  void on_read(ErrorCode error, std::size_t bytes);
  void on_input_end(bool orderly);
  void parse();
  void enter_idle();
  void deliver();
  void refuse(int status, std::string reason);
  void begin_answer(HttpRequest request, bool keep_alive, bool http_1_1);
  void flush();
  void send();
  void on_sent(ErrorCode error, std::size_t bytes);
  void answer_sent();
  void report_done();
  void linger();
  void set_deadline(double seconds);

  ServerLoop& loop_;
  std::unique_ptr<Transport> transport_;
  const std::string remote_;
  Phase phase_ = Phase::kHandshake;
  Clock::time_point deadline_;
  Clock::time_point began_;  // the first byte of the request being read

  std::string buffer_;  // the read in flight lands here
  std::string input_;   // read and not yet parsed
  bool reading_ = false, input_ended_ = false, continue_sent_ = false;
  std::unique_ptr<RequestParser> parser_;  // while kReading

  std::shared_ptr<Answer> answer_;  // while kAnswering
  Answer::State answer_state_ = Answer::State::kOpen;
  std::string output_;  // the write in flight
  std::size_t output_sent_ = 0;
  bool writing_ = false, interim_ = false;  // interim: "100 Continue", no part of an answer
};

}  // namespace bise
