// TLS settings: certificates, keys, trusted roots. Shared by any number of connections and threads.
#pragma once

#include <memory>
#include <string>

namespace boost::asio::ssl {
class context;
}

namespace bise {

class TlsContext {
 public:
  // Files are PEM. Throws Error naming the file that is absent, unreadable or does not fit.
  struct Server {
    std::string certfile, keyfile;  // keyfile "": the key is in certfile
    std::string ca_certs;           // whom to trust for client certificates
    std::string ciphers;            // OpenSSL's list, for TLS 1.2
    bool require_client_cert = false;
  };
  struct Client {
    std::string ca_certs;           // "": the system's roots
    std::string certfile, keyfile;  // a client certificate, or ""
    bool verify = true;             // check the server's certificate and its name
  };
  explicit TlsContext(const Server& options);
  explicit TlsContext(const Client& options);
  ~TlsContext();

  boost::asio::ssl::context& get() const { return *context_; }
  bool verifies() const { return verifies_; }

 private:
  std::unique_ptr<boost::asio::ssl::context> context_;
  bool verifies_ = false;
};

}  // namespace bise
