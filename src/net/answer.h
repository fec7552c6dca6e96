// The answer to one request: a mailbox between whoever produces it (any thread) and the connection that
// sends it (its I/O thread). It frames the bytes; it knows nothing of sockets.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "net/http_message.h"
#include "net/http_server.h"

namespace bise {

class Answer {
 public:
  struct Terms {
    bool http_1_1 = true;    // chunks are understood
    bool keep_alive = true;  // the connection may stay afterwards
    std::size_t max_unsent_bytes = 0;
    std::chrono::steady_clock::time_point began;  // the first byte of the request
  };
  // `wake` asks the connection to call take() soon. It is called with a lock held and may only post.
  Answer(HttpRequest request, const Terms& terms, std::function<void()> wake);

  // Any thread: HttpExchange's methods. Calls out of order (a second answer, write() before start_stream())
  // are broken invariants.
  const HttpRequest& request() const { return request_; }
  std::string take_body() { return std::move(request_.body); }
  void respond(HttpResponse response);
  void start_stream(int status, HttpHeaders headers);
  void write(std::string_view data);
  void finish();
  std::size_t unsent_bytes() const { return unsent_; }
  void on_disconnect(std::function<void()> callback);
  bool disconnected() const;
  // Nobody will answer any more: 500, or a cut when the stream had begun.
  void abandon();

  // I/O thread, for the connection.
  enum class State { kOpen, kFinished };
  // Appends the queued bytes to `out`; kFinished: nothing comes after them.
  State take(std::string& out);
  bool broken() const;           // cut the connection
  void sent(std::size_t bytes);  // so many of them went to the kernel
  bool finished() const;
  void end_connection();  // say "connection: close" if that can still be said
  bool keep_alive() const;
  // The client is gone: drops what is queued and runs the callback of on_disconnect() unless finished.
  void client_gone();

  int status() const;  // 499 before there is one
  std::size_t bytes_sent() const { return bytes_sent_; }
  double seconds() const;

 private:
  void put(const HttpResponse& response);
  void begin(int status, const HttpHeaders& headers, const std::size_t* content_length);
  void queue(std::string_view data);
  void wake();
  void cut();

  HttpRequest request_;
  const Terms terms_;
  const bool head_;
  mutable std::mutex mutex_;  // guards what follows
  std::function<void()> wake_;
  std::function<void()> on_disconnect_;
  std::string queued_;
  int status_ = 0;  // 0: not begun
  bool keep_alive_;
  bool bodyless_ = false, chunked_ = false;
  bool finished_ = false, broken_ = false, abandoned_ = false, gone_ = false, woken_ = false;
  std::atomic<std::size_t> unsent_ = 0;
  std::size_t bytes_sent_ = 0;  // I/O thread only
};

// The handler's end of `answer`; abandons it when dropped.
std::shared_ptr<HttpExchange> make_exchange(std::shared_ptr<Answer> answer);

}  // namespace bise
