// An exchange without a connection: what a handler answered can be read from it.
#pragma once

#include <string>
#include <utility>

#include "net/http_server.h"

namespace bise {

class FakeExchange : public HttpExchange {
 public:
  explicit FakeExchange(HttpRequest request) : request_(std::move(request)) {}

  const HttpRequest& request() const override { return request_; }
  std::string take_body() override { return std::move(request_.body); }
  void respond(HttpResponse given) override {
    ++answers;
    response = std::move(given);
  }
  void start_stream(int status, HttpHeaders headers) override {
    ++answers;
    response = {status, std::move(headers), ""};
  }
  void write(std::string data) override { response.body += data; }
  void finish() override { finished = true; }
  std::size_t unsent_bytes() const override { return 0; }
  void on_disconnect(std::function<void()> callback) override { disconnect = std::move(callback); }
  bool disconnected() const override { return false; }

  HttpResponse response;
  int answers = 0;
  bool finished = false;
  std::function<void()> disconnect;

 private:
  HttpRequest request_;
};

}  // namespace bise
