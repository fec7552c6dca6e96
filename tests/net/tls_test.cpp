// TLS between client and server, with certificates made here.
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <memory>

#include "base/error.h"
#include "net/http_client.h"
#include "tests/net/raw_client.h"
#include "tests/net/scripted_server.h"
#include "tests/test_support.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

struct Identity {
  Key key{nullptr, EVP_PKEY_free};
  Certificate certificate{nullptr, X509_free};
};

void add_extension(X509* certificate, X509* issuer, int kind, const char* value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, kind, value);
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

// A certificate for `names` ("DNS:localhost,IP:127.0.0.1"), signed by `issuer` or, when null, by itself as an
// authority.
Identity make_identity(const char* common_name, const char* names, const Identity* issuer, long days = 1) {
  Identity made;
  made.key.reset(EVP_EC_gen("P-256"));
  made.certificate.reset(X509_new());
  X509* certificate = made.certificate.get();
  X509_set_version(certificate, 2);
  static long serial = 1;
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial++);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -2 * 86400);
  X509_gmtime_adj(X509_getm_notAfter(certificate), days * 86400);
  X509_set_pubkey(certificate, made.key.get());
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(common_name), -1, -1, 0);
  X509* signer = issuer ? issuer->certificate.get() : certificate;
  X509_set_issuer_name(certificate, X509_get_subject_name(signer));
  add_extension(certificate, signer, NID_basic_constraints, issuer ? "CA:FALSE" : "critical,CA:TRUE");
  if (names) add_extension(certificate, signer, NID_subject_alt_name, names);
  X509_sign(certificate, issuer ? issuer->key.get() : made.key.get(), EVP_sha256());
  return made;
}

void save(const Identity& identity, const fs::path& certfile, const fs::path& keyfile) {
  std::FILE* file = std::fopen(certfile.c_str(), "w");
  PEM_write_X509(file, identity.certificate.get());
  std::fclose(file);
  file = std::fopen(keyfile.c_str(), "w");
  PEM_write_PrivateKey(file, identity.key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(file);
}

class Tls : public testing::Test {
 protected:
  Tls() {
    authority_ = make_identity("test authority", nullptr, nullptr);
    save(authority_, file("ca.pem"), file("ca.key"));
    save(make_identity("server", "DNS:localhost,IP:127.0.0.1", &authority_), file("server.pem"),
         file("server.key"));
    save(make_identity("client", nullptr, &authority_), file("client.pem"), file("client.key"));
    save(make_identity("other", "DNS:other.example", &authority_), file("other.pem"), file("other.key"));
    save(make_identity("old", "DNS:localhost,IP:127.0.0.1", &authority_, -1), file("old.pem"),
         file("old.key"));
  }

  std::string file(const char* name) const { return folder_.path() / name; }
  TestServer::Adjust serving(const char* name, bool client_certificates = false) {
    return [this, name = std::string(name), client_certificates](HttpServerOptions& options) {
      options.ssl_certfile = file((name + ".pem").c_str());
      options.ssl_keyfile = file((name + ".key").c_str());
      if (client_certificates) options.ssl_ca_certs = file("ca.pem");
      options.ssl_require_client_cert = client_certificates;
      options.read_timeout = 2;
    };
  }
  HttpClientOptions trusting() const { return {.ca_certs = file("ca.pem")}; }
  static std::string address(const TestServer& server, const std::string& path,
                             const char* host = "127.0.0.1") {
    return "https://" + std::string(host) + ":" + std::to_string(server.port()) + path;
  }

  ScratchFolder folder_;
  Identity authority_;
};

TEST_F(Tls, CallsAndStreams) {
  TestServer server(serving("server"));
  HttpClient client(trusting());
  const HttpResult first = client.fetch({.url = address(server, "/a", "localhost")});
  EXPECT_EQ(first.body, "GET /a  0") << first.error;
  const HttpResult second = client.fetch(
      {.method = "POST", .url = address(server, "/a", "localhost"), .body = std::string(3000000, 'x')});
  EXPECT_EQ(second.body, "POST /a  3000000") << second.error;
  EXPECT_TRUE(second.reused);
  std::string body;
  HttpCall streaming{.url = address(server, "/stream?50")};
  streaming.on_body = [&](std::string_view bytes) {
    body += bytes;
    return true;
  };
  EXPECT_TRUE(client.fetch(std::move(streaming)).ok());
  EXPECT_TRUE(body.starts_with("data: 0\n\n") && body.ends_with("data: 49\n\n"));
  // The server ends the connection in an orderly way.
  EXPECT_TRUE(client.fetch({.url = address(server, "/a"), .headers = {{"Connection", "close"}}}).ok());
}

TEST_F(Tls, DisconnectsAreNoticed) {
  TestServer server(serving("server"));
  HttpClient client(trusting());
  std::atomic<int> ended = 0;
  const auto id = client.send({.url = address(server, "/hold")}, [&](HttpResult) { ++ended; });
  const auto held = server.wait_held();
  ASSERT_TRUE(held);
  std::atomic<bool> gone = false;
  held->on_disconnect([&] { gone = true; });
  client.cancel(id);
  EXPECT_TRUE(eventually([&] { return gone.load(); }, 0.5));
  EXPECT_TRUE(eventually([&] { return ended == 1; }, 0.5));
}

TEST_F(Tls, CertificatesAreVerified) {
  struct Case {
    const char *name, *server, *host;
    bool trust, verify;
    HttpFailure failure;
  };
  const Case cases[] = {
      {"good", "server", "localhost", true, true, HttpFailure::kNone},
      {"unknown authority", "server", "localhost", false, true, HttpFailure::kTls},
      {"another name", "other", "localhost", true, true, HttpFailure::kTls},
      {"another address", "other", "127.0.0.1", true, true, HttpFailure::kTls},
      {"expired", "old", "localhost", true, true, HttpFailure::kTls},
      {"unverified by wish", "old", "localhost", false, false, HttpFailure::kNone},
  };
  for (const Case& test : cases) {
    TestServer server(serving(test.server));
    HttpClientOptions options;
    if (test.trust) options = trusting();
    options.verify_certificates = test.verify;
    HttpClient client(options);
    const HttpResult result = client.fetch({.url = address(server, "/a", test.host)});
    EXPECT_EQ(static_cast<int>(result.failure), static_cast<int>(test.failure))
        << test.name << ": " << result.error;
    if (test.failure == HttpFailure::kTls) {
      EXPECT_NE(result.error.find("certificate verify failed"), std::string::npos) << result.error;
    }
  }
}

TEST_F(Tls, TheSystemsRootsAreTrustedByDefault) {
  TestServer server(serving("server"));
  // Where OpenSSL looks for the system's roots; here the test's authority plays them.
  ::setenv("SSL_CERT_FILE", file("ca.pem").c_str(), 1);
  const HttpResult trusted = HttpClient().fetch({.url = address(server, "/a")});
  ::unsetenv("SSL_CERT_FILE");
  EXPECT_TRUE(trusted.ok()) << trusted.error;
  EXPECT_EQ(static_cast<int>(HttpClient().fetch({.url = address(server, "/a")}).failure),
            static_cast<int>(HttpFailure::kTls));
}

TEST_F(Tls, ClientCertificates) {
  TestServer server(serving("server", true));
  HttpClientOptions options = trusting();
  EXPECT_NE(static_cast<int>(HttpClient(options).fetch({.url = address(server, "/a")}).failure),
            static_cast<int>(HttpFailure::kNone));
  options.certfile = file("client.pem");
  options.keyfile = file("client.key");
  const HttpResult result = HttpClient(options).fetch({.url = address(server, "/a")});
  EXPECT_TRUE(result.ok()) << result.error;
}

TEST_F(Tls, PlainBytesToATlsServerAreRefusedQuickly) {
  TestServer server(serving("server"));
  RawClient client(server.port());
  client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  client.read_to_end();
  EXPECT_TRUE(client.at_end());
  RawClient silent(server.port());
  silent.read_to_end();
  EXPECT_TRUE(silent.at_end()) << "a handshake that never comes ends with the read timeout";
  EXPECT_TRUE(HttpClient(trusting()).fetch({.url = address(server, "/a")}).ok());
}

TEST_F(Tls, ThroughATunnel) {
  TestServer server(serving("server"));
  TunnelProxy proxy;
  HttpClientOptions options = trusting();
  options.proxy = "http://me:secret@127.0.0.1:" + std::to_string(proxy.port());
  EXPECT_EQ(HttpClient(options).fetch({.url = address(server, "/a")}).body, "GET /a  0");
  const std::string place = "127.0.0.1:" + std::to_string(server.port());
  EXPECT_EQ(proxy.head(), "CONNECT " + place + " HTTP/1.1\r\nHost: " + place +
                              "\r\nProxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n");
  TunnelProxy refusing("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
  options.proxy = "http://127.0.0.1:" + std::to_string(refusing.port());
  const HttpResult refused = HttpClient(options).fetch({.url = address(server, "/a")});
  EXPECT_EQ(static_cast<int>(refused.failure), static_cast<int>(HttpFailure::kConnect));
  EXPECT_NE(refused.error.find("403"), std::string::npos) << refused.error;
}

TEST_F(Tls, UnusableFilesAreNamed) {
  const auto error_of = [](const TestServer::Adjust& adjust) -> std::string {
    try {
      TestServer server(adjust);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  const std::pair<TestServer::Adjust, std::string> cases[] = {
      {[](HttpServerOptions& options) { options.ssl_certfile = "/no/such/file"; }, "/no/such/file"},
      {[this](HttpServerOptions& options) {
         options.ssl_certfile = file("server.pem");
         options.ssl_keyfile = file("other.key");
       },
       "other.key"},
      {[this](HttpServerOptions& options) { options.ssl_certfile = file("server.pem"); }, "server.pem"},
      {[this](HttpServerOptions& options) {
         serving("server")(options);
         options.ssl_ciphers = "NO-SUCH-CIPHER";
       },
       "NO-SUCH-CIPHER"},
      {[this](HttpServerOptions& options) {
         serving("server")(options);
         options.ssl_require_client_cert = true;
       },
       "CA certificates"},
  };
  for (const auto& [adjust, name] : cases) {
    const std::string error = error_of(adjust);
    EXPECT_NE(error.find(name), std::string::npos) << error;
  }
}

}  // namespace
}  // namespace bise
