// An exchange without a connection that a test can wait for while other threads answer it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "net/http_server.h"

namespace bise {

class WaitingExchange : public HttpExchange {
 public:
  explicit WaitingExchange(HttpRequest request) : request_(std::move(request)) {}

  const HttpRequest& request() const override { return request_; }
  std::string take_body() override { return std::move(request_.body); }
  void respond(HttpResponse given) override {
    const std::lock_guard lock(mutex_);
    ++answers_;
    response_ = std::move(given);
    done_ = true;
    changed_.notify_all();
  }
  void start_stream(int status, HttpHeaders headers) override {
    const std::lock_guard lock(mutex_);
    ++answers_;
    response_ = {status, std::move(headers), ""};
  }
  void write(std::string data) override {
    const std::lock_guard lock(mutex_);
    response_.body += data;
    ++writes_;
    changed_.notify_all();
  }
  void finish() override {
    const std::lock_guard lock(mutex_);
    done_ = true;
    changed_.notify_all();
  }
  std::size_t unsent_bytes() const override {
    const std::lock_guard lock(mutex_);
    return unsent_;
  }
  void on_disconnect(std::function<void()> callback) override {
    const std::lock_guard lock(mutex_);
    on_disconnect_ = std::move(callback);
  }
  bool disconnected() const override {
    const std::lock_guard lock(mutex_);
    return disconnected_;
  }

  // False when nothing came in time.
  bool wait(double seconds = 20) {
    return wait_until([this] { return done_; }, seconds);
  }
  bool wait_for_text(const std::string& text, double seconds = 20) {
    return wait_until([&] { return response_.body.find(text) != std::string::npos; }, seconds);
  }
  HttpResponse response() const {
    const std::lock_guard lock(mutex_);
    return response_;
  }
  int answers() const {
    const std::lock_guard lock(mutex_);
    return answers_;
  }
  void set_unsent(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    unsent_ = bytes;
  }
  void disconnect() {
    std::function<void()> callback;
    {
      const std::lock_guard lock(mutex_);
      disconnected_ = true;
      callback = std::move(on_disconnect_);
    }
    if (callback) callback();
  }

 private:
  template <class Condition>
  bool wait_until(Condition condition, double seconds) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::duration<double>(seconds), condition);
  }

  HttpRequest request_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  HttpResponse response_;
  std::function<void()> on_disconnect_;
  std::size_t unsent_ = 0;
  int answers_ = 0, writes_ = 0;
  bool done_ = false, disconnected_ = false;
};

}  // namespace bise
