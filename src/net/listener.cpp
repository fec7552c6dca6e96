#include "net/listener.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "base/error.h"

namespace bise {
namespace {

constexpr int kBacklog = 2048;

int new_socket(int family) {
  return ::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

std::uint16_t bound_port(int descriptor) {
  sockaddr_storage address = {};
  socklen_t length = sizeof address;
  ::getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

std::string address_text(const sockaddr_storage& address, socklen_t length) {
  if (address.ss_family == AF_UNIX) return "unix";
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "unknown";
  }
  return address.ss_family == AF_INET6 ? fmt::format("[{}]:{}", host, port)
                                       : fmt::format("{}:{}", host, port);
}

// True when a server answers on the socket file.
bool answers(const sockaddr_un& address) {
  const int probe = new_socket(AF_UNIX);
  if (probe < 0) return false;
  const int result = ::connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const bool alive = result == 0 || errno == EAGAIN || errno == EINPROGRESS;
  ::close(probe);
  return alive;
}

}  // namespace

Listener Listener::tcp(const std::string& host, std::uint16_t port) {
  const std::string where = fmt::format("{}:{}", host, port);
  addrinfo hints = {};
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failure =
      ::getaddrinfo(host.empty() ? nullptr : host.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (failure != 0) throw Error("cannot listen: {}", ::gai_strerror(failure)).at(where);
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses(found, ::freeaddrinfo);
  int error = EADDRNOTAVAIL;
  for (const addrinfo* address = found; address; address = address->ai_next) {
    Listener listener(new_socket(address->ai_family));
    const int yes = 1;
    ::setsockopt(listener.descriptor_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (listener.descriptor_ >= 0 &&
        ::bind(listener.descriptor_, address->ai_addr, address->ai_addrlen) == 0 &&
        ::listen(listener.descriptor_, kBacklog) == 0) {
      listener.port_ = bound_port(listener.descriptor_);
      return listener;
    }
    error = errno;
  }
  throw Error("cannot listen: {}", std::strerror(error)).at(where);
}

Listener Listener::unix_socket(const std::string& path, unsigned mode) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    throw Error("a unix socket's path has 1 to {} bytes", sizeof address.sun_path - 1).at(path);
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  struct stat file;
  if (::lstat(path.c_str(), &file) == 0) {
    if (!S_ISSOCK(file.st_mode)) throw Error("cannot listen: the path exists and is not a socket").at(path);
    if (answers(address)) throw Error("cannot listen: another server answers there").at(path);
    ::unlink(path.c_str());
  }
  Listener listener(new_socket(AF_UNIX));
  if (listener.descriptor_ < 0 ||
      ::bind(listener.descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    throw Error("cannot listen: {}", std::strerror(errno)).at(path);
  }
  if (::chmod(path.c_str(), mode) != 0 || ::stat(path.c_str(), &listener.file_) != 0 ||
      ::listen(listener.descriptor_, kBacklog) != 0) {
    throw Error("cannot listen: {}", std::strerror(errno)).at(path);
  }
  listener.path_ = path;
  return listener;
}

Listener::Listener(Listener&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      port_(other.port_),
      path_(std::exchange(other.path_, {})),
      file_(other.file_) {}

Listener::~Listener() {
  if (descriptor_ >= 0) ::close(descriptor_);
  struct stat file;
  if (!path_.empty() && ::stat(path_.c_str(), &file) == 0 && file.st_dev == file_.st_dev &&
      file.st_ino == file_.st_ino) {
    ::unlink(path_.c_str());
  }
}

Listener::Accepted Listener::accept() const {
  sockaddr_storage address = {};
  socklen_t length = sizeof address;
  Accepted accepted;
  accepted.descriptor =
      ::accept4(descriptor_, reinterpret_cast<sockaddr*>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (accepted.descriptor < 0) {
    accepted.error = errno;
    return accepted;
  }
  accepted.family = address.ss_family;
  accepted.remote = address_text(address, length);
  if (address.ss_family != AF_UNIX) {
    const int yes = 1;
    ::setsockopt(accepted.descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  }
  return accepted;
}

}  // namespace bise
