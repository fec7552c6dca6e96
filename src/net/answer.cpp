#include "net/answer.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>
#include <iterator>

#include "base/check.h"

namespace bise {
namespace {

// "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110, section 5.6.7), formatted once a second.
std::string_view http_date() {
  thread_local std::time_t formatted = -1;
  thread_local char text[32];
  thread_local std::size_t length = 0;
  const std::time_t now = std::time(nullptr);
  if (now != formatted) {
    std::tm parts;
    gmtime_r(&now, &parts);
    static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                              "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    const auto end = fmt::format_to_n(text, sizeof text, "{}, {:02} {} {} {:02}:{:02}:{:02} GMT",
                                      kDays[parts.tm_wday], parts.tm_mday, kMonths[parts.tm_mon],
                                      parts.tm_year + 1900, parts.tm_hour, parts.tm_min, parts.tm_sec);
    length = end.size;
    formatted = now;
  }
  return {text, length};
}

// A header value that came from a request or a file must not become two lines.
std::string one_line(std::string text) {
  std::ranges::replace_if(
      text, [](char c) { return c == '\r' || c == '\n' || c == '\0'; }, ' ');
  return text;
}

class Exchange final : public HttpExchange {
 public:
  explicit Exchange(std::shared_ptr<Answer> answer) : answer_(std::move(answer)) {}
  ~Exchange() override { answer_->abandon(); }

  const HttpRequest& request() const override { return answer_->request(); }
  std::string take_body() override { return answer_->take_body(); }
  void respond(HttpResponse response) override { answer_->respond(std::move(response)); }
  void start_stream(int status, HttpHeaders headers) override {
    answer_->start_stream(status, std::move(headers));
  }
  void write(std::string data) override { answer_->write(data); }
  void finish() override { answer_->finish(); }
  std::size_t unsent_bytes() const override { return answer_->unsent_bytes(); }
  void on_disconnect(std::function<void()> callback) override { answer_->on_disconnect(std::move(callback)); }
  bool disconnected() const override { return answer_->disconnected(); }

 private:
  std::shared_ptr<Answer> answer_;
};

}  // namespace

Answer::Answer(HttpRequest request, const Terms& terms, std::function<void()> wake)
    : request_(std::move(request)),
      terms_(terms),
      head_(request_.method == "HEAD"),
      wake_(std::move(wake)),
      keep_alive_(terms.keep_alive) {}

void Answer::respond(HttpResponse response) {
  const std::lock_guard lock(mutex_);
  if (gone_ || abandoned_) return;
  check(status_ == 0, "a request is answered once");
  put(response);
}

void Answer::put(const HttpResponse& response) {
  const std::size_t length = response.body.size();
  begin(response.status, response.headers, &length);
  if (!bodyless_) queue(response.body);
  finished_ = true;
  on_disconnect_ = nullptr;
  wake();
}

void Answer::start_stream(int status, HttpHeaders headers) {
  const std::lock_guard lock(mutex_);
  if (gone_ || abandoned_) return;
  check(status_ == 0, "a request is answered once");
  chunked_ = terms_.http_1_1;
  if (!chunked_) keep_alive_ = false;  // the end of the connection is the end of the body
  begin(status, headers, nullptr);
  wake();
}

void Answer::write(std::string_view data) {
  const std::lock_guard lock(mutex_);
  if (gone_ || broken_ || abandoned_) return;
  check(status_ != 0 && !finished_, "write() belongs between start_stream() and finish()");
  if (bodyless_ || data.empty()) return;  // an empty chunk would end the body
  if (unsent_ + data.size() > terms_.max_unsent_bytes) {
    std::string().swap(queued_);
    return cut();
  } else if (chunked_) {
    char size[24];
    const auto end = fmt::format_to_n(size, sizeof size, "{:x}\r\n", data.size());
    queue({size, end.size});
    queue(data);
    queue("\r\n");
  } else {
    queue(data);
  }
  wake();
}

void Answer::finish() {
  const std::lock_guard lock(mutex_);
  if (gone_ || broken_ || abandoned_) return;
  check(status_ != 0 && !finished_, "finish() belongs after start_stream(), once");
  if (chunked_ && !bodyless_) queue("0\r\n\r\n");
  finished_ = true;
  on_disconnect_ = nullptr;
  wake();
}

void Answer::on_disconnect(std::function<void()> callback) {
  {
    const std::lock_guard lock(mutex_);
    if (finished_) return;
    if (!gone_) {
      on_disconnect_ = std::move(callback);
      return;
    }
  }
  if (callback) callback();
}

bool Answer::disconnected() const {
  const std::lock_guard lock(mutex_);
  return gone_ || broken_;
}

void Answer::abandon() {
  const std::lock_guard lock(mutex_);
  if (gone_ || finished_ || abandoned_) return;
  abandoned_ = true;
  if (status_ == 0) {
    return put({500, {{"content-type", "text/plain; charset=utf-8"}}, "Internal Server Error"});
  }
  on_disconnect_ = nullptr;
  cut();
}

// While a write hangs the connection has been woken and looks no more: this is worth another call.
void Answer::cut() {
  broken_ = true;
  woken_ = false;
  wake();
}

void Answer::begin(int status, const HttpHeaders& headers, const std::size_t* content_length) {
  status_ = status;
  const bool no_content = status == 204 || status == 304 || status < 200;
  bodyless_ = head_ || no_content;
  if (const auto wish = headers.find("connection"); wish && equal_ignoring_case(*wish, "close")) {
    keep_alive_ = false;
  }
  std::string text;
  auto out = std::back_inserter(text);
  fmt::format_to(out, "HTTP/1.1 {} {}\r\ndate: {}\r\n", status, status_phrase(status), http_date());
  for (const auto& [name, value] : headers.fields()) {
    if (equal_ignoring_case(name, "connection") || equal_ignoring_case(name, "transfer-encoding")) continue;
    if (equal_ignoring_case(name, "content-length") && !head_) continue;
    fmt::format_to(out, "{}: {}\r\n", one_line(name), one_line(value));
  }
  if (content_length && !no_content && !(head_ && headers.find("content-length"))) {
    fmt::format_to(out, "content-length: {}\r\n", *content_length);
  } else if (!content_length && chunked_ && !no_content) {
    text += "transfer-encoding: chunked\r\n";
  }
  if (!keep_alive_) {
    text += "connection: close\r\n";
  } else if (!terms_.http_1_1) {
    text += "connection: keep-alive\r\n";
  }
  text += "\r\n";
  queue(text);
}

void Answer::queue(std::string_view data) {
  queued_ += data;
  unsent_ += data.size();
}

void Answer::wake() {
  if (woken_) return;
  woken_ = true;
  wake_();
}

bool Answer::broken() const {
  const std::lock_guard lock(mutex_);
  return broken_;
}

Answer::State Answer::take(std::string& out) {
  const std::lock_guard lock(mutex_);
  woken_ = false;
  if (out.empty()) {
    out.swap(queued_);
  } else {
    out += queued_;
    queued_.clear();
  }
  return finished_ ? State::kFinished : State::kOpen;
}

void Answer::sent(std::size_t bytes) {
  unsent_ -= bytes;
  bytes_sent_ += bytes;
}

bool Answer::finished() const {
  const std::lock_guard lock(mutex_);
  return finished_;
}

void Answer::end_connection() {
  const std::lock_guard lock(mutex_);
  keep_alive_ = false;
}

bool Answer::keep_alive() const {
  const std::lock_guard lock(mutex_);
  return keep_alive_;
}

void Answer::client_gone() {
  std::function<void()> callback;
  {
    const std::lock_guard lock(mutex_);
    if (gone_) return;
    gone_ = true;
    std::string().swap(queued_);
    unsent_ = 0;
    if (!finished_) callback = std::move(on_disconnect_);
    on_disconnect_ = nullptr;
    wake_ = nullptr;
  }
  if (callback) callback();
}

int Answer::status() const {
  const std::lock_guard lock(mutex_);
  return status_ == 0 ? 499 : status_;
}

double Answer::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - terms_.began).count();
}

std::shared_ptr<HttpExchange> make_exchange(std::shared_ptr<Answer> answer) {
  return std::make_shared<Exchange>(std::move(answer));
}

}  // namespace bise
