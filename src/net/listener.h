// The listening socket of a server: a TCP port or a unix socket. Inside src/net only.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>

namespace bise {

class Listener {
 public:
  // A free port is chosen when `port` is 0. Throw Error naming the address.
  static Listener tcp(const std::string& host, std::uint16_t port);
  // Replaces the socket file of a server that is no more; throws when one answers there, or when the path
  // is taken by something else. The file goes away with this object.
  static Listener unix_socket(const std::string& path, unsigned mode);
  ~Listener();
  Listener(Listener&& other) noexcept;
  Listener& operator=(Listener&&) = delete;

  int descriptor() const { return descriptor_; }  // non-blocking
  std::uint16_t port() const { return port_; }    // 0 for a unix socket

  struct Accepted {
    int descriptor = -1;  // -1: none, see error
    int error = 0;        // errno
    int family = 0;
    std::string remote;  // "127.0.0.1:54321" or "unix"
  };
  Accepted accept() const;

 private:
  explicit Listener(int descriptor) : descriptor_(descriptor) {}

  int descriptor_ = -1;
  std::uint16_t port_ = 0;
  std::string path_;
  struct stat file_ = {};  // of path_ as created: another server's file is left alone
};

}  // namespace bise
