#include "tests/net/scripted_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>

namespace bise {
namespace {

int listen_anywhere(std::uint16_t& port) {
  const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ::bind(listener, reinterpret_cast<sockaddr*>(&address), sizeof address);
  ::listen(listener, 64);
  socklen_t length = sizeof address;
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &length);
  port = ntohs(address.sin_port);
  return listener;
}

int dial(std::uint16_t port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof address);
  return socket;
}

// Waits for something to read on `socket`, looking at `stop` meanwhile.
bool readable(int socket, const std::atomic<bool>& stop) {
  while (!stop) {
    pollfd wait = {socket, POLLIN, 0};
    if (::poll(&wait, 1, 10) > 0) return true;
  }
  return false;
}

std::string read_head(int socket, const std::atomic<bool>& stop) {
  std::string head;
  char byte;
  while (!head.ends_with("\r\n\r\n")) {
    if (!readable(socket, stop) || ::recv(socket, &byte, 1, 0) <= 0) return "";
    head += byte;
  }
  return head;
}

void send_all(int socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return;
    bytes.remove_prefix(static_cast<std::size_t>(sent));
  }
}

}  // namespace

ScriptedServer::ScriptedServer(std::vector<Reply> replies) : replies_(std::move(replies)) {
  listener_ = listen_anywhere(port_);
  thread_ = std::thread([this] { serve(); });
}

ScriptedServer::~ScriptedServer() {
  stop_ = true;
  thread_.join();
  ::close(listener_);
}

std::string ScriptedServer::url(const std::string& path) const {
  return "http://127.0.0.1:" + std::to_string(port_) + path;
}

std::vector<std::string> ScriptedServer::requests() {
  const std::lock_guard lock(mutex_);
  return requests_;
}

void ScriptedServer::serve() {
  std::size_t next = 0;
  while (readable(listener_, stop_)) {
    const int socket = ::accept(listener_, nullptr, nullptr);
    ++connections_;
    for (bool keep = true; keep;) {
      keep = false;
      const std::string head = read_head(socket, stop_);
      if (head.empty()) break;
      {
        const std::lock_guard lock(mutex_);
        requests_.push_back(head);
      }
      if (next >= replies_.size()) {
        while (!stop_) std::this_thread::sleep_for(std::chrono::milliseconds(5));
        break;
      }
      const Reply& reply = replies_[next++];
      std::this_thread::sleep_for(std::chrono::duration<double>(reply.delay));
      send_all(socket, reply.bytes);
      keep = reply.then == Reply::kKeep;
      if (reply.then == Reply::kReset) {
        const linger now = {1, 0};
        ::setsockopt(socket, SOL_SOCKET, SO_LINGER, &now, sizeof now);
      }
    }
    ::close(socket);
  }
}

TunnelProxy::TunnelProxy(std::string refuse_with) : refuse_with_(std::move(refuse_with)) {
  listener_ = listen_anywhere(port_);
  thread_ = std::thread([this] { serve(); });
}

TunnelProxy::~TunnelProxy() {
  stop_ = true;
  thread_.join();
  ::close(listener_);
}

std::string TunnelProxy::head() {
  const std::lock_guard lock(mutex_);
  return head_;
}

void TunnelProxy::serve() {
  while (readable(listener_, stop_)) {
    const int client = ::accept(listener_, nullptr, nullptr);
    const std::string head = read_head(client, stop_);
    {
      const std::lock_guard lock(mutex_);
      head_ = head;
    }
    const std::size_t colon = head.find(':');
    if (!refuse_with_.empty() || colon == std::string::npos) {
      send_all(client, refuse_with_);
      ::close(client);
      continue;
    }
    const int server = dial(static_cast<std::uint16_t>(std::stoi(head.substr(colon + 1))));
    send_all(client, "HTTP/1.1 200 Connection established\r\n\r\n");
    for (bool open = true; open && !stop_;) {
      pollfd both[2] = {{client, POLLIN, 0}, {server, POLLIN, 0}};
      if (::poll(both, 2, 10) <= 0) continue;
      for (int side = 0; side < 2; ++side) {
        if (both[side].revents == 0) continue;
        char bytes[4096];
        const ssize_t got = ::recv(both[side].fd, bytes, sizeof bytes, 0);
        if (got <= 0) open = false;
        if (got > 0) send_all(both[1 - side].fd, {bytes, static_cast<std::size_t>(got)});
      }
    }
    ::close(client);
    ::close(server);
  }
}

}  // namespace bise
