// An HTTP/1.1 client for many concurrent calls: one I/O thread, kept-alive connections, TLS checked against
// the system's roots, redirects, proxies. It reads no environment variable: the command line does.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/http_message.h"

namespace bise {

struct HttpClientOptions {
  double connect_timeout = 10;  // s for name, connection, proxy and TLS
  double idle_timeout = 120;    // s without a byte in either direction once connected; 0: none
  double total_timeout = 0;     // s for a whole call; 0: none
  int max_redirects = 10;       // 0: a 3xx is an answer like any other
  std::size_t max_header_bytes = std::size_t{64} << 10;
  std::size_t max_body_bytes = std::size_t{1} << 30;  // of an answer collected in memory
  double keep_idle = 60;                              // s that an unused connection is kept
  bool verify_certificates = true;
  std::string ca_certs = {};                // PEM; "": the system's roots
  std::string certfile = {}, keyfile = {};  // a client certificate, or ""
  std::string proxy = {};                   // "http://[user:password@]host:port" for all calls, or ""
  std::vector<std::string> no_proxy = {};  // hosts called directly: "host", ".domain" (it and all below), "*"
  std::string unix_socket = {};            // connect there whatever the address says
  std::string user_agent = "bise";
};

enum class HttpFailure {
  kNone,
  kConnect,    // no such name, nobody listens, the proxy refuses
  kTls,        // the certificate does not verify, no common protocol
  kTimeout,    // one of the three
  kCut,        // the connection ended before the answer did
  kProtocol,   // not HTTP, or beyond a limit
  kRedirects,  // too many, to nowhere, or from https to http
  kCancelled,  // by cancel(), by a callback, or with the client
};

struct HttpCall {
  std::string method = "GET";
  std::string url = {};
  HttpHeaders headers = {};  // Host, User-Agent, Accept and Content-Length are added when absent
  std::string body = {};
  // For the last answer, after redirects: its status and headers, before its body. False cancels.
  std::function<bool(int status, const HttpHeaders& headers)> on_header = {};
  // The body of a 2xx answer, piece by piece as it arrives, instead of HttpResult::body. False cancels.
  std::function<bool(std::string_view bytes)> on_body = {};
  std::optional<double> total_timeout = {};
  std::optional<int> max_redirects = {};
};

struct HttpResult {
  HttpFailure failure = HttpFailure::kNone;
  std::string error;  // what happened and with whom, when failure is not kNone
  int status = 0;     // 0 when no answer began
  HttpHeaders headers;
  std::string body;
  std::string url;      // the one that answered
  bool reused = false;  // over a connection that had served before
  double connected_seconds = 0, first_byte_seconds = 0, seconds = 0;  // since send()

  bool ok() const { return failure == HttpFailure::kNone && status >= 200 && status < 300; }
};

class HttpClient {
 public:
  // Throws Error when a certificate file or the proxy's address is unusable.
  explicit HttpClient(HttpClientOptions options = {});
  ~HttpClient();  // cancels what is in flight; may wait for a name being looked up
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  // Callbacks run on the client's thread and must not block; on_done runs exactly once. From any thread,
  // callbacks included. Throws Error when the call itself is malformed (address, method, header).
  // A GET or HEAD whose kept connection turns out to be closed is sent once more.
  using OnDone = std::function<void(HttpResult result)>;
  std::uint64_t send(HttpCall call, OnDone on_done);
  void cancel(std::uint64_t id);  // nothing when it is done

  // Waits. Not from a callback. Network failures are in the result.
  HttpResult fetch(HttpCall call);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// The fields of "bytes 0-99/1234" in a 206 answer; `total` is absent for '*'.
struct ContentRange {
  std::uint64_t first = 0, last = 0;
  std::optional<std::uint64_t> total;
};
std::optional<ContentRange> parse_content_range(std::string_view field);

}  // namespace bise
