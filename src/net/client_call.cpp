#include "net/client_call.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <cctype>
#include <iterator>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "net/awaiting.h"

namespace bise {
namespace {
namespace asio = boost::asio;

constexpr std::size_t kReadBuffer = 16 << 10;
constexpr std::size_t kLargeReadBuffer = 256 << 10;
// The body of a redirect is read, for the connection's sake, up to here.
constexpr std::size_t kMaxDiscarded = 64 << 10;

bool is_token(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](unsigned char c) {
    return std::isalnum(c) ||
           std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
  });
}

void require_sendable(const HttpCall& call) {
  if (!is_token(call.method)) throw Error("not an HTTP method").got(call.method);
  for (const auto& [name, value] : call.headers.fields()) {
    if (!is_token(name)) throw Error("not the name of a header").got(name);
    if (value.find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos) {
      throw Error("the header {} holds a line end or NUL", name);
    }
  }
}

}  // namespace

ClientCall::ClientCall(ClientShared& shared, asio::io_context& context, std::uint64_t id, HttpCall call,
                       HttpClient::OnDone on_done)
    : shared_(shared),
      context_(context),
      id_(id),
      call_(std::move(call)),
      on_done_(std::move(on_done)),
      url_(parse_url(call_.url)),
      redirects_left_(call_.max_redirects.value_or(shared.options.max_redirects)) {
  require_sendable(call_);
  const double total = call_.total_timeout.value_or(shared.options.total_timeout);
  if (total > 0) total_deadline_ = began_ + in_seconds(total);
}

void ClientCall::start() {
  asio::co_spawn(context_, run(), [self = shared_from_this()](std::exception_ptr) {});
}

double ClientCall::seconds() const {
  return std::chrono::duration<double>(Clock::now() - began_).count();
}

asio::awaitable<void> ClientCall::run() {
  std::string problem;
  HttpFailure kind = HttpFailure::kNone;
  try {
    ensure_running();
    do {
      co_await exchange();
    } while (redirect());
  } catch (const Failed& failed) {
    kind = failed.kind;
    problem = failed.text;
  } catch (const std::exception& error) {  // out of a callback, or out of memory
    kind = HttpFailure::kCancelled;
    problem = error.what();
  }
  if (kind != HttpFailure::kNone) {
    fail(kind, problem);
  } else if (!finished_) {
    finish();
  }
}

void ClientCall::ensure_running() const {
  if (finished_) throw Failed{HttpFailure::kCancelled, "ended meanwhile"};
}

void ClientCall::fail(HttpFailure failure, const std::string& error) {
  if (finished_) return;
  result_.failure = failure;
  result_.error = fmt::format("{} {}: {}", call_.method, url_.text(), error);
  close_sockets();
  finish();
}

void ClientCall::finish() {
  finished_ = true;
  result_.url = url_.text();
  result_.seconds = seconds();
  const auto self = shared_from_this();
  shared_.calls.erase(id_);
  call_.on_header = nullptr;
  call_.on_body = nullptr;
  try {
    if (const auto done = std::exchange(on_done_, nullptr)) done(std::move(result_));
  } catch (const std::exception& error) {
    log_warning("{}: {}", url_.text(), error.what());
  }
}

void ClientCall::close_sockets() {
  ErrorCode ignored;
  if (connecting_) connecting_->close(ignored);
  if (transport_) transport_->close();
}

void ClientCall::check_deadlines() {
  const HttpClientOptions& options = shared_.options;
  const auto now = Clock::now();
  if (now >= total_deadline_) return fail(HttpFailure::kTimeout, "the whole call took too long");
  if (now >= connect_deadline_) {
    return fail(HttpFailure::kTimeout, fmt::format("not connected after {} s", options.connect_timeout));
  }
  if (now >= idle_deadline_) {
    return fail(HttpFailure::kTimeout, fmt::format("nothing came for {} s", options.idle_timeout));
  }
  if (now >= attempt_deadline_) {
    attempt_deadline_ = Clock::time_point::max();
    ErrorCode ignored;
    if (connecting_) connecting_->close(ignored);  // on to the next address
  }
}

asio::awaitable<void> ClientCall::exchange() {
  const std::string key = pool_key();
  for (bool again = true; again;) {
    again = false;
    input_.clear();
    parser_ = std::make_unique<ResponseParser>(shared_.options.max_header_bytes, call_.method == "HEAD");
    transport_ = shared_.take_idle(key);
    result_.reused = transport_ != nullptr;
    if (!transport_) {
      connect_deadline_ = Clock::now() + in_seconds(shared_.options.connect_timeout);
      co_await connect();
      connect_deadline_ = Clock::time_point::max();
    }
    result_.connected_seconds = seconds();
    // A server that refuses a long body may answer and close before it has read it.
    co_await send_request();
    co_await receive();
    const bool nothing_came = !parser_->header_done() && input_.empty();
    again = nothing_came && result_.reused && (call_.method == "GET" || call_.method == "HEAD");
    if (!again && !parser_->done() && discarded_ <= kMaxDiscarded) {
      throw Failed{HttpFailure::kCut, nothing_came ? "the connection ended without an answer"
                                                   : "the connection ended within the answer"};
    }
  }
  idle_deadline_ = Clock::time_point::max();
  if (parser_->keep_alive() && input_.empty()) {
    shared_.keep_idle(key, std::move(transport_));
  } else {
    transport_->close();
  }
}

std::string ClientCall::request_head() const {
  const bool to_proxy = through_proxy() && !url_.tls();
  std::string head;
  auto out = std::back_inserter(head);
  fmt::format_to(out, "{} {} HTTP/1.1\r\n", call_.method, to_proxy ? url_.text() : url_.target());
  const auto add = [&](std::string_view name, std::string_view value) {
    if (!call_.headers.find(name)) fmt::format_to(out, "{}: {}\r\n", name, value);
  };
  add("Host", url_.authority());
  add("User-Agent", shared_.options.user_agent);
  add("Accept", "*/*");
  if (!url_.user.empty()) add("Authorization", url_.basic_authorization());
  if (to_proxy && !shared_.proxy->user.empty())
    add("Proxy-Authorization", shared_.proxy->basic_authorization());
  for (const auto& [name, value] : call_.headers.fields()) fmt::format_to(out, "{}: {}\r\n", name, value);
  if (!call_.body.empty() || call_.method == "POST" || call_.method == "PUT" || call_.method == "PATCH") {
    add("Content-Length", std::to_string(call_.body.size()));
  }
  head += "\r\n";
  return head;
}

asio::awaitable<bool> ClientCall::send_request() {
  std::string head = request_head();
  if (call_.body.size() > kLargeReadBuffer) {
    co_return co_await write_all(head) && co_await write_all(call_.body);
  }
  head += call_.body;
  co_return co_await write_all(head);
}

asio::awaitable<bool> ClientCall::write_all(std::string_view bytes) {
  while (!bytes.empty()) {
    touch();
    const auto [error, sent] = co_await transfer([&](auto done) {
      transport_->write_some(asio::buffer(bytes.data(), bytes.size()), std::move(done));
    });
    ensure_running();
    if (error) co_return false;
    bytes.remove_prefix(sent);
  }
  co_return true;
}

void ClientCall::touch() {
  if (shared_.options.idle_timeout > 0)
    idle_deadline_ = Clock::now() + in_seconds(shared_.options.idle_timeout);
}

asio::awaitable<std::size_t> ClientCall::read_some() {
  touch();
  const auto [error, bytes] =
      co_await transfer([&](auto done) { transport_->read_some(asio::buffer(buffer_), std::move(done)); });
  ensure_running();
  // A body that lasts until the end is whole only when that end is orderly.
  if (error == asio::error::eof) parser_->put_end();
  co_return error ? 0 : bytes;
}

asio::awaitable<void> ClientCall::receive() {
  buffer_.resize(kReadBuffer);
  deliver_ = false;
  discarded_ = 0;
  const ResponseParser::OnBody on_body = [this](std::string_view bytes) { take_body(bytes); };
  while (!parser_->done() && discarded_ <= kMaxDiscarded) {
    const std::size_t bytes = co_await read_some();
    if (bytes == 0) co_return;
    if (result_.first_byte_seconds == 0) result_.first_byte_seconds = seconds();
    input_.append(buffer_, 0, bytes);
    std::size_t used = 0;
    for (std::size_t step = 1; step > 0 && !parser_->done();) {
      const bool had_header = parser_->header_done();
      step = parser_->put(std::string_view(input_).substr(used), on_body);
      used += step;
      if (!parser_->failed().empty()) throw Failed{HttpFailure::kProtocol, parser_->failed()};
      if (!had_header && parser_->header_done()) take_header();
    }
    input_.erase(0, used);
    if (bytes == buffer_.size() && bytes < kLargeReadBuffer) buffer_.resize(kLargeReadBuffer);
  }
}

void ClientCall::take_header() {
  const int status = parser_->status();
  if (status == 101) throw Failed{HttpFailure::kProtocol, "the server switched protocols unasked"};
  if (status < 200) {  // an interim answer: the real one follows
    parser_ = std::make_unique<ResponseParser>(shared_.options.max_header_bytes, call_.method == "HEAD");
    return;
  }
  result_.status = status;
  result_.headers = std::move(parser_->headers());
  result_.body.clear();
  deliver_ = !wants_redirect();
  if (deliver_ && call_.on_header && !call_.on_header(status, result_.headers)) {
    throw Failed{HttpFailure::kCancelled, "cancelled"};
  }
}

void ClientCall::take_body(std::string_view bytes) {
  if (!deliver_) {
    discarded_ += bytes.size();
  } else if (call_.on_body && result_.status < 300) {
    if (!call_.on_body(bytes)) throw Failed{HttpFailure::kCancelled, "cancelled"};
  } else if (result_.body.size() + bytes.size() > shared_.options.max_body_bytes) {
    throw Failed{HttpFailure::kProtocol,
                 fmt::format("the answer is longer than {} bytes", shared_.options.max_body_bytes)};
  } else {
    result_.body += bytes;
  }
}

bool ClientCall::wants_redirect() const {
  const int status = result_.status;
  return (status == 301 || status == 302 || status == 303 || status == 307 || status == 308) &&
         result_.headers.find("location") && call_.max_redirects.value_or(shared_.options.max_redirects) > 0;
}

bool ClientCall::redirect() {
  if (deliver_) return false;
  if (redirects_left_-- == 0) throw Failed{HttpFailure::kRedirects, "too many redirects"};
  Url next;
  try {
    next = resolve_url(url_, *result_.headers.find("location"));
  } catch (const Error& error) {
    throw Failed{HttpFailure::kRedirects, error.what()};
  }
  if (url_.tls() && !next.tls()) throw Failed{HttpFailure::kRedirects, "redirected from https to http"};
  if (!url_.same_origin(next)) {
    for (const char* secret : {"authorization", "cookie"}) call_.headers.remove(secret);
  } else {
    next.user = url_.user;
    next.password = url_.password;
  }
  const int status = result_.status;
  if ((status == 303 && call_.method != "HEAD") || (status < 303 && call_.method == "POST")) {
    call_.method = "GET";
    call_.body.clear();
    for (const char* name : {"content-type", "content-length"}) call_.headers.remove(name);
  }
  call_.headers.remove("host");
  url_ = std::move(next);
  return true;
}

}  // namespace bise
