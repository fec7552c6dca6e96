// A server that answers each connection with the bytes it was told, good or bad: for the client's tests.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace bise {

class ScriptedServer {
 public:
  struct Reply {
    std::string bytes = {};
    enum { kClose, kReset, kKeep } then = kClose;  // kKeep: wait for the next request on this connection
    double delay = 0;                              // s before the bytes
  };
  // Requests are answered in the order of `replies`, whatever connection they come on; connections beyond
  // them are accepted and never answered. One connection at a time is served.
  explicit ScriptedServer(std::vector<Reply> replies);
  ~ScriptedServer();

  std::uint16_t port() const { return port_; }
  std::string url(const std::string& path = "/") const;
  std::vector<std::string> requests();  // their headers
  int connections() const { return connections_; }

 private:
  void serve();

  std::vector<Reply> replies_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<bool> stop_ = false;
  std::atomic<int> connections_ = 0;
  std::mutex mutex_;
  std::vector<std::string> requests_;
  std::thread thread_;
};

// A proxy for CONNECT and nothing else; remembers what it was asked.
class TunnelProxy {
 public:
  explicit TunnelProxy(std::string refuse_with = "");  // a status line to answer instead
  ~TunnelProxy();
  std::uint16_t port() const { return port_; }
  std::string head();  // of the last CONNECT

 private:
  void serve();

  std::string refuse_with_;
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  std::string head_;
  std::thread thread_;
};

}  // namespace bise
