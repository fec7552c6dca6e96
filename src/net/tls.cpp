#include "net/tls.h"

#include <boost/asio/ssl/context.hpp>
#include <filesystem>

#include "base/error.h"

namespace bise {
namespace {
namespace ssl = boost::asio::ssl;
using ErrorCode = boost::system::error_code;

void require(const ErrorCode& error, const char* what, const std::string& path) {
  if (error) throw Error("{}: {}", what, error.message()).at(path);
}

void load_certificate(ssl::context& context, const std::string& certfile, const std::string& keyfile) {
  ErrorCode error;
  require(context.use_certificate_chain_file(certfile, error), "cannot use the TLS certificate", certfile);
  const std::string& key = keyfile.empty() ? certfile : keyfile;
  require(context.use_private_key_file(key, ssl::context::pem, error), "cannot use the TLS key", key);
  if (SSL_CTX_check_private_key(context.native_handle()) != 1) {
    throw Error("the TLS key does not belong to the certificate {}", certfile).at(key);
  }
}

// OpenSSL's built-in places are those of the system it was built for; a binary carried elsewhere finds the
// roots where the usual distributions keep them.
void load_system_roots(ssl::context& context) {
  namespace fs = std::filesystem;
  ErrorCode error;
  std::error_code absent;
  context.set_default_verify_paths(error);
  const fs::path folder = X509_get_default_cert_dir();
  if (fs::exists(X509_get_default_cert_file(), absent)) return;
  if (fs::is_directory(folder, absent) && !fs::is_empty(folder, absent)) return;
  for (const char* bundle : {"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
                             "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"}) {
    if (!fs::exists(bundle, absent)) continue;
    context.load_verify_file(bundle, error);
    if (!error) return;
  }
}

}  // namespace

TlsContext::TlsContext(const Server& options)
    : context_(std::make_unique<ssl::context>(ssl::context::tls_server)) {
  ErrorCode error;
  SSL_CTX_set_min_proto_version(context_->native_handle(), TLS1_2_VERSION);
  // An idle connection gives its 32 KiB of record buffers back.
  SSL_CTX_set_mode(context_->native_handle(), SSL_MODE_RELEASE_BUFFERS);
  load_certificate(*context_, options.certfile, options.keyfile);
  if (!options.ca_certs.empty()) {
    require(context_->load_verify_file(options.ca_certs, error), "cannot use the CA certificates",
            options.ca_certs);
    context_->set_verify_mode(ssl::verify_peer, error);
  }
  if (options.require_client_cert) {
    if (options.ca_certs.empty())
      throw Error("client certificates need the CA certificates to check them with");
    context_->set_verify_mode(ssl::verify_peer | ssl::verify_fail_if_no_peer_cert, error);
    verifies_ = true;
  }
  if (!options.ciphers.empty() &&
      SSL_CTX_set_cipher_list(context_->native_handle(), options.ciphers.c_str()) != 1) {
    throw Error("no usable TLS cipher in \"{}\"", options.ciphers);
  }
}

TlsContext::TlsContext(const Client& options)
    : context_(std::make_unique<ssl::context>(ssl::context::tls_client)), verifies_(options.verify) {
  ErrorCode error;
  SSL_CTX_set_min_proto_version(context_->native_handle(), TLS1_2_VERSION);
  SSL_CTX_set_mode(context_->native_handle(), SSL_MODE_RELEASE_BUFFERS);
  if (!options.certfile.empty()) load_certificate(*context_, options.certfile, options.keyfile);
  if (!options.ca_certs.empty()) {
    require(context_->load_verify_file(options.ca_certs, error), "cannot use the CA certificates",
            options.ca_certs);
  } else if (verifies_) {
    load_system_roots(*context_);
  }
  context_->set_verify_mode(verifies_ ? ssl::verify_peer : ssl::verify_none, error);
}

TlsContext::~TlsContext() = default;

}  // namespace bise
