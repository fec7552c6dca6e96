// A byte stream over TCP or a unix socket, with TLS or without. Inside src/net only: it shows Asio's types.
// Belongs to the thread of its io_context. At most one read and one write are in flight; close() makes them
// end with an error, and their callbacks still run.
#pragma once

#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>

#include "net/tls.h"

namespace bise {

using ErrorCode = boost::system::error_code;
using Socket = boost::asio::basic_stream_socket<boost::asio::generic::stream_protocol,
                                                boost::asio::io_context::executor_type>;

class Transport {
 public:
  using OnBytes = std::function<void(ErrorCode, std::size_t)>;
  using OnDone = std::function<void(ErrorCode)>;

  virtual ~Transport() = default;
  // Must end before the first read or write. Does nothing without TLS.
  virtual void handshake(OnDone done) = 0;
  virtual void read_some(boost::asio::mutable_buffer buffer, OnBytes done) = 0;
  virtual void write_some(boost::asio::const_buffer buffer, OnBytes done) = 0;
  // Says that nothing more will be written; reading goes on.
  virtual void end_writing() = 0;
  virtual void close() = 0;
  // The other side has neither closed nor sent anything that was not read: a kept connection is usable.
  virtual bool quiet() = 0;
};

std::unique_ptr<Transport> make_plain_transport(Socket socket);
std::unique_ptr<Transport> make_tls_server_transport(Socket socket, const TlsContext& context);
// `host` is the name that the certificate must carry and that is sent as SNI.
std::unique_ptr<Transport> make_tls_client_transport(Socket socket, const TlsContext& context,
                                                     const std::string& host);

}  // namespace bise
