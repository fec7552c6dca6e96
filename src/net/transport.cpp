#include "net/transport.h"

#include <sys/socket.h>

#include <boost/asio/post.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <cerrno>

namespace bise {
namespace {
namespace asio = boost::asio;

bool nothing_to_read(Socket& socket) {
  char byte;
  const ssize_t got = ::recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

class PlainTransport final : public Transport {
 public:
  explicit PlainTransport(Socket socket) : socket_(std::move(socket)) {}

  void handshake(OnDone done) override {
    asio::post(socket_.get_executor(), [done = std::move(done)] { done({}); });
  }
  void read_some(asio::mutable_buffer buffer, OnBytes done) override {
    socket_.async_read_some(buffer, std::move(done));
  }
  void write_some(asio::const_buffer buffer, OnBytes done) override {
    socket_.async_write_some(buffer, std::move(done));
  }
  void end_writing() override {
    ErrorCode ignored;
    socket_.shutdown(Socket::shutdown_send, ignored);
  }
  void close() override {
    ErrorCode ignored;
    socket_.close(ignored);
  }
  bool quiet() override { return nothing_to_read(socket_); }

 private:
  Socket socket_;
};

class TlsTransport final : public Transport {
 public:
  TlsTransport(Socket socket, const TlsContext& context, asio::ssl::stream_base::handshake_type side)
      : stream_(std::make_shared<Stream>(std::move(socket), context.get())), side_(side) {}

  bool name_server(const std::string& host, bool verify) {
    if (verify) stream_->set_verify_callback(asio::ssl::host_name_verification(host));
    return SSL_set_tlsext_host_name(stream_->native_handle(), host.c_str()) == 1;
  }
  void handshake(OnDone done) override { stream_->async_handshake(side_, std::move(done)); }
  void read_some(asio::mutable_buffer buffer, OnBytes done) override {
    stream_->async_read_some(buffer, std::move(done));
  }
  void write_some(asio::const_buffer buffer, OnBytes done) override {
    stream_->async_write_some(buffer, std::move(done));
  }
  // Sends close_notify. Asio's shutdown also waits for the other side's, which close() cuts short; the
  // stream lives until then.
  void end_writing() override {
    stream_->async_shutdown([stream = stream_](ErrorCode) {
      ErrorCode ignored;
      stream->lowest_layer().shutdown(Socket::shutdown_send, ignored);
    });
  }
  void close() override {
    ErrorCode ignored;
    stream_->lowest_layer().close(ignored);
  }
  bool quiet() override { return nothing_to_read(stream_->next_layer()); }

 private:
  using Stream = asio::ssl::stream<Socket>;
  std::shared_ptr<Stream> stream_;
  asio::ssl::stream_base::handshake_type side_;
};

}  // namespace

std::unique_ptr<Transport> make_plain_transport(Socket socket) {
  return std::make_unique<PlainTransport>(std::move(socket));
}

std::unique_ptr<Transport> make_tls_server_transport(Socket socket, const TlsContext& context) {
  return std::make_unique<TlsTransport>(std::move(socket), context, asio::ssl::stream_base::server);
}

std::unique_ptr<Transport> make_tls_client_transport(Socket socket, const TlsContext& context,
                                                     const std::string& host) {
  auto transport = std::make_unique<TlsTransport>(std::move(socket), context, asio::ssl::stream_base::client);
  transport->name_server(host, context.verifies());
  return transport;
}

}  // namespace bise
