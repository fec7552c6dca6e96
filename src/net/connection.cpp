#include "net/connection.h"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <vector>

#include "base/log.h"

namespace bise {
namespace {
namespace asio = boost::asio;

// A connection that waits holds a small buffer; a long body is read in larger pieces.
constexpr std::size_t kSmallBuffer = 2048;
constexpr std::size_t kLargeBuffer = 64 << 10;
// Requests sent ahead of their answers: beyond this the client waits in the kernel's buffers.
constexpr std::size_t kMaxReadAhead = 64 << 10;
constexpr double kLinger = 2;  // s

std::chrono::steady_clock::duration duration(double seconds) {
  return std::chrono::duration_cast<std::chrono::steady_clock::duration>(
      std::chrono::duration<double>(seconds));
}

// Gives the memory of a long request or a burst back.
void release_if_large(std::string& text) {
  if (text.capacity() > kMaxReadAhead && text.size() < kMaxReadAhead / 2) text.shrink_to_fit();
}

// Runs a callback of the server's owner: what it throws must not end the I/O thread.
template <class Callback>
void guarded(Callback callback) {
  try {
    callback();
  } catch (const std::exception& error) {
    log_warning("in a callback of the HTTP server: {}", error.what());
  }
}

}  // namespace

Connection::Connection(ServerLoop& loop, std::unique_ptr<Transport> transport, std::string remote)
    : loop_(loop), transport_(std::move(transport)), remote_(std::move(remote)) {}

void Connection::start() {
  set_deadline(loop_.shared.options.read_timeout);
  transport_->handshake([self = shared_from_this()](ErrorCode error) {
    if (self->phase_ == Phase::kClosed) return;
    if (error) {
      log_debug("{}: TLS handshake failed: {}", self->remote_, error.message());
      return self->close();
    }
    self->enter_idle();
    self->read();
  });
}

void Connection::set_deadline(double seconds) {
  deadline_ = Clock::now() + duration(seconds);
}

void Connection::enter_idle() {
  phase_ = Phase::kIdle;
  set_deadline(loop_.shared.options.idle_timeout);
  if (loop_.shared.draining) linger();
}

void Connection::read() {
  if (reading_ || input_ended_ || phase_ == Phase::kClosed) return;
  if (phase_ == Phase::kAnswering && input_.size() >= kMaxReadAhead) return;
  reading_ = true;
  const bool long_body = phase_ == Phase::kReading && parser_->body_expected() > kLargeBuffer;
  const std::size_t size = long_body ? kLargeBuffer : kSmallBuffer;
  if (buffer_.size() != size) {
    buffer_.resize(size);
    buffer_.shrink_to_fit();
  }
  transport_->read_some(
      asio::buffer(buffer_),
      [self = shared_from_this()](ErrorCode error, std::size_t bytes) { self->on_read(error, bytes); });
}

void Connection::on_read(ErrorCode error, std::size_t bytes) {
  reading_ = false;
  if (phase_ == Phase::kClosed) return;
  if (error) {
    input_ended_ = true;
    return on_input_end(error == asio::error::eof);
  }
  if (phase_ != Phase::kLingering) {
    input_.append(buffer_, 0, bytes);
    parse();
  }
  read();
}

void Connection::on_input_end(bool orderly) {
  switch (phase_) {
    case Phase::kReading:
      if (orderly) return refuse(400, "the request ended early");
      return close();
    case Phase::kAnswering:
      // All is said already, or the client left while it was being answered.
      if (orderly && answer_->finished()) return answer_->end_connection();
      return close();
    default: return close();
  }
}

void Connection::parse() {
  std::size_t used = 0;
  const auto rest = [&] { return std::string_view(input_).substr(used); };
  if (phase_ == Phase::kIdle) {
    // Old clients put an empty line behind a body (RFC 9112, section 2.2).
    while (used < input_.size() && (input_[used] == '\r' || input_[used] == '\n')) ++used;
    if (!rest().empty()) {
      const HttpServerOptions& options = loop_.shared.options;
      phase_ = Phase::kReading;
      began_ = Clock::now();
      set_deadline(options.read_timeout);
      continue_sent_ = false;
      parser_ = std::make_unique<RequestParser>(RequestLimits{
          options.max_header_bytes, static_cast<std::size_t>(options.max_headers), options.max_body_bytes});
    }
  }
  if (phase_ == Phase::kReading) {
    used += parser_->put(rest());
    input_.erase(0, used);
    if (parser_->refused()) return refuse(*parser_->refused(), parser_->reason());
    if (parser_->done()) return deliver();
    if (parser_->header_done() && parser_->expects_continue() && !continue_sent_) {
      continue_sent_ = true;
      output_ = "HTTP/1.1 100 Continue\r\n\r\n";
      interim_ = true;
      flush();
    }
  } else {
    input_.erase(0, used);
  }
}

void Connection::refuse(int status, std::string reason) {
  log_debug("{}: {}: {}", remote_, status, reason);
  HttpRequest request = std::move(parser_->request());
  request.body.clear();
  begin_answer(std::move(request), false, true);
  HttpResponse response = {status, {{"content-type", "text/plain; charset=utf-8"}}, reason + "\n"};
  if (const auto& page = loop_.shared.options.error_page) {
    guarded([&] { response = page(status, reason); });
  }
  answer_->respond(std::move(response));
}

void Connection::deliver() {
  const bool keep_alive = parser_->keep_alive() && !loop_.shared.draining;
  begin_answer(std::move(parser_->request()), keep_alive, parser_->http_1_1());
  const auto exchange = make_exchange(answer_);
  try {
    loop_.shared.handler(exchange);
  } catch (const std::exception& error) {
    log_warning("{} {}: {}", answer_->request().method, answer_->request().path, error.what());
    answer_->abandon();
  }
}

void Connection::begin_answer(HttpRequest request, bool keep_alive, bool http_1_1) {
  request.remote = remote_;
  phase_ = Phase::kAnswering;
  parser_.reset();
  release_if_large(input_);
  auto wake = [&context = loop_.context, weak = weak_from_this()] {
    asio::post(context, [weak] {
      if (const auto self = weak.lock()) self->flush();
    });
  };
  const Answer::Terms terms = {http_1_1, keep_alive, loop_.shared.options.max_unsent_bytes, began_};
  answer_ = std::make_shared<Answer>(std::move(request), terms, std::move(wake));
  answer_state_ = Answer::State::kOpen;
}

void Connection::flush() {
  if (phase_ == Phase::kClosed) return;
  if (answer_ && answer_->broken()) {
    log_debug("{}: the answer was cut", remote_);
    return close();
  }
  if (writing_) return;
  if (answer_) answer_state_ = answer_->take(output_);
  if (!output_.empty()) {
    writing_ = true;
    if (phase_ == Phase::kAnswering) set_deadline(loop_.shared.options.write_timeout);
    send();
  } else if (answer_ && answer_state_ == Answer::State::kFinished) {
    answer_sent();
  }
}

void Connection::send() {
  const asio::const_buffer rest = asio::buffer(output_) + output_sent_;
  transport_->write_some(
      rest, [self = shared_from_this()](ErrorCode error, std::size_t bytes) { self->on_sent(error, bytes); });
}

void Connection::on_sent(ErrorCode error, std::size_t bytes) {
  writing_ = false;
  if (phase_ == Phase::kClosed) return;
  if (error) return close();
  output_sent_ += bytes;
  if (answer_ && !interim_) {
    answer_->sent(bytes);
    set_deadline(loop_.shared.options.write_timeout);
  }
  if (output_sent_ < output_.size()) {
    writing_ = true;
    return send();
  }
  output_sent_ = 0;
  interim_ = false;
  output_.clear();
  release_if_large(output_);
  flush();
}

void Connection::report_done() {
  guarded([&] {
    if (const auto& done = loop_.shared.on_done) {
      done(answer_->request(), answer_->status(), answer_->bytes_sent(), answer_->seconds());
    }
  });
}

void Connection::answer_sent() {
  const bool keep_alive = answer_->keep_alive() && !input_ended_;
  report_done();
  answer_.reset();
  answer_state_ = Answer::State::kOpen;
  if (!keep_alive) return linger();
  enter_idle();
  if (phase_ != Phase::kIdle) return;
  if (!input_.empty()) parse();
  read();
}

void Connection::linger() {
  if (input_ended_) return close();
  phase_ = Phase::kLingering;
  set_deadline(kLinger);
  std::string().swap(input_);
  transport_->end_writing();
  read();
}

void Connection::drain() {
  if (phase_ == Phase::kHandshake || phase_ == Phase::kIdle) return close();
  if (answer_) answer_->end_connection();
}

void Connection::close() {
  if (phase_ == Phase::kClosed) return;
  phase_ = Phase::kClosed;
  const auto self = shared_from_this();
  transport_->close();
  if (answer_) {
    guarded([&] { answer_->client_gone(); });
    report_done();
    answer_.reset();
  }
  loop_.connections.erase(this);
  --loop_.shared.connections;
}

void Connection::check_deadline() {
  // While the answer is being produced and all of it so far is sent, the client may wait as long as it likes.
  if (phase_ == Phase::kAnswering && !writing_) return;
  if (Clock::now() < deadline_) return;
  if (phase_ == Phase::kReading) return refuse(408, "the request took too long to arrive");
  if (phase_ == Phase::kAnswering) log_debug("{}: the client does not read", remote_);
  close();
}

void ServerLoop::start_sweeping() {
  const HttpServerOptions& options = shared.options;
  const double shortest = std::min({options.read_timeout, options.idle_timeout, options.write_timeout});
  sweep.expires_after(duration(std::clamp(shortest / 8, 0.01, 0.5)));
  sweep.async_wait([this](ErrorCode error) {
    if (error || closing) return;
    std::vector<std::shared_ptr<Connection>> all;
    all.reserve(connections.size());
    for (const auto& [_, connection] : connections) all.push_back(connection);
    for (const auto& connection : all) connection->check_deadline();
    start_sweeping();
  });
}

void ServerLoop::drain() {
  const auto all = connections;
  for (const auto& [_, connection] : all) connection->drain();
}

void ServerLoop::close_all() {
  closing = true;
  sweep.cancel();
  const auto all = connections;
  for (const auto& [_, connection] : all) connection->close();
}

}  // namespace bise
