// How a ClientCall gets its connection: name, addresses, proxy, TLS.
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/write.hpp>
#include <iterator>
#include <tuple>

#include "net/awaiting.h"
#include "net/client_call.h"

namespace bise {
namespace asio = boost::asio;

bool ClientCall::through_proxy() const {
  if (!shared_.proxy || !shared_.options.unix_socket.empty()) return false;
  return std::ranges::none_of(shared_.options.no_proxy, [&](const std::string& host) {
    return host == "*" || host == url_.host ||
           (host.starts_with('.') && (url_.host.ends_with(host) || url_.host == host.substr(1)));
  });
}

std::string ClientCall::pool_key() const {
  return (through_proxy() ? "proxy " : "") + url_.scheme + "://" + url_.authority();
}

asio::awaitable<void> ClientCall::connect() {
  const bool proxied = through_proxy();
  if (!shared_.options.unix_socket.empty()) {
    connecting_ = std::make_unique<Socket>(context_);
    const asio::local::stream_protocol::endpoint place(shared_.options.unix_socket);
    const auto [error] = co_await connecting_->async_connect({place.data(), place.size()}, kAwait);
    ensure_running();
    if (error) throw Failed{HttpFailure::kConnect, error.message()};
  } else {
    const Url& where = proxied ? *shared_.proxy : url_;
    co_await connect_to(where.host, where.port);
  }
  if (proxied && url_.tls()) co_await open_tunnel();
  transport_ = url_.tls() ? make_tls_client_transport(std::move(*connecting_), *shared_.tls, url_.host)
                          : make_plain_transport(std::move(*connecting_));
  connecting_.reset();
  const auto [error, _] = co_await transfer(
      [&](auto done) { transport_->handshake([done](ErrorCode failure) { done(failure, 0); }); });
  ensure_running();
  if (error) throw Failed{HttpFailure::kTls, error.message()};
}

asio::awaitable<void> ClientCall::connect_to(const std::string& host, std::uint16_t port) {
  asio::ip::tcp::resolver resolver(context_);
  const auto [unknown, found] = co_await resolver.async_resolve(
      host, std::to_string(port), asio::ip::tcp::resolver::numeric_service, kAwait);
  ensure_running();
  if (unknown) throw Failed{HttpFailure::kConnect, fmt::format("{}: {}", host, unknown.message())};
  ErrorCode error;
  std::ptrdiff_t left = std::distance(found.begin(), found.end());
  for (const auto& entry : found) {
    const asio::ip::tcp::endpoint place = entry.endpoint();
    connecting_ = std::make_unique<Socket>(context_);
    // One address that does not answer must not use up the time of the others.
    attempt_deadline_ = Clock::now() + (connect_deadline_ - Clock::now()) / left--;
    std::tie(error) = co_await connecting_->async_connect({place.data(), place.size()}, kAwait);
    attempt_deadline_ = Clock::time_point::max();
    ensure_running();
    if (error) continue;
    const int yes = 1;
    ::setsockopt(connecting_->native_handle(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    co_return;
  }
  throw Failed{HttpFailure::kConnect, fmt::format("{}:{}: {}", host, port, error.message())};
}

asio::awaitable<void> ClientCall::open_tunnel() {
  const Url& proxy = *shared_.proxy;
  const std::string host = url_.host.find(':') == std::string::npos ? url_.host : "[" + url_.host + "]";
  std::string head = fmt::format("CONNECT {0}:{1} HTTP/1.1\r\nHost: {0}:{1}\r\n", host, url_.port);
  if (!proxy.user.empty()) head += "Proxy-Authorization: " + proxy.basic_authorization() + "\r\n";
  head += "\r\n";
  const auto [unsent, _] = co_await asio::async_write(*connecting_, asio::buffer(head), kAwait);
  ensure_running();
  if (unsent) throw Failed{HttpFailure::kConnect, "the proxy closed the connection"};
  ResponseParser parser(shared_.options.max_header_bytes, true);
  std::string answer;
  buffer_.resize(4096);
  while (!parser.done() && parser.failed().empty()) {
    const auto [error, bytes] = co_await connecting_->async_read_some(asio::buffer(buffer_), kAwait);
    ensure_running();
    if (error) throw Failed{HttpFailure::kConnect, "the proxy closed the connection"};
    answer.append(buffer_, 0, bytes);
    answer.erase(0, parser.put(answer, [](std::string_view) {}));
  }
  if (!parser.done() || parser.status() < 200 || parser.status() > 299) {
    throw Failed{HttpFailure::kConnect, fmt::format("the proxy answered {}", parser.status())};
  }
}

}  // namespace bise
