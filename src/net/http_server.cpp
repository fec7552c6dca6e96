#include "net/http_server.h"

#include <sys/resource.h>
#include <unistd.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "net/connection.h"
#include "net/listener.h"

namespace bise {
namespace {
namespace asio = boost::asio;

constexpr auto kAcceptPause = std::chrono::milliseconds(50);  // when no file can be opened
constexpr double kWarnEvery = 10;                             // s

// A thousand streams need a thousand files; the usual soft limit is 1024.
void raise_file_limit() {
  rlimit files;
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
}

Listener listen(const HttpServerOptions& options) {
  return options.unix_socket.empty() ? Listener::tcp(options.host, options.port)
                                     : Listener::unix_socket(options.unix_socket, options.unix_socket_mode);
}

// One connection that runs out of memory ends by its deadline; the others go on.
void run_to_end(asio::io_context& context) {
  for (;;) {
    try {
      context.run();
      return;
    } catch (const std::exception& error) {
      log_warning("in the HTTP server: {}", error.what());
    }
  }
}

}  // namespace

struct HttpServer::State {
  State(const HttpServerOptions& options, Handler handler, OnDone on_done)
      : shared(options, std::move(handler), std::move(on_done)), listener(listen(options)) {
    if (options.threads < 1)
      throw Error("the server needs a thread or more").got(std::to_string(options.threads));
    if (!options.ssl_certfile.empty()) {
      shared.tls = std::make_unique<TlsContext>(TlsContext::Server{options.ssl_certfile, options.ssl_keyfile,
                                                                   options.ssl_ca_certs, options.ssl_ciphers,
                                                                   options.ssl_require_client_cert});
    }
    for (int i = 0; i < options.threads; ++i) loops.push_back(std::make_unique<ServerLoop>(shared));
    port = listener->port();
    readable.emplace(loops[0]->context, ::dup(listener->descriptor()));
    accept_pause.emplace(loops[0]->context);
  }

  // All on the first loop's thread.
  void wait_for_clients();
  void accept_clients();
  void pause_accepting();
  void stop_accepting();
  void adopt(Listener::Accepted accepted);

  ServerShared shared;
  std::optional<Listener> listener;
  std::uint16_t port = 0;
  std::vector<std::unique_ptr<ServerLoop>> loops;
  std::optional<asio::posix::stream_descriptor> readable;
  std::optional<asio::steady_timer> accept_pause;
  std::size_t next_loop = 0;
  std::optional<Stopwatch> last_warning;
  std::vector<std::thread> threads;
  bool stopped = false;
};

void HttpServer::State::wait_for_clients() {
  readable->async_wait(asio::posix::stream_descriptor::wait_read, [this](ErrorCode error) {
    if (!error && listener) accept_clients();
  });
}

void HttpServer::State::accept_clients() {
  // A bounded batch, so that a flood of new clients does not hold up the streams of the old.
  for (int i = 0; i < 64; ++i) {
    const std::size_t most = shared.options.max_connections;
    if (most != 0 && shared.connections >= most) return pause_accepting();
    Listener::Accepted accepted = listener->accept();
    if (accepted.descriptor >= 0) {
      adopt(std::move(accepted));
    } else if (accepted.error == EAGAIN || accepted.error == EWOULDBLOCK) {
      break;
    } else if (accepted.error == EMFILE || accepted.error == ENFILE || accepted.error == ENOBUFS ||
               accepted.error == ENOMEM) {
      if (!last_warning || last_warning->seconds() > kWarnEvery) {
        log_warning("cannot accept a connection with {} open: {}", shared.connections.load(),
                    std::strerror(accepted.error));
        last_warning.emplace();
      }
      return pause_accepting();
    }  // anything else is the fault of that one client
  }
  wait_for_clients();
}

// The listening socket stays readable while clients wait: asking again at once would spin.
void HttpServer::State::pause_accepting() {
  accept_pause->expires_after(kAcceptPause);
  accept_pause->async_wait([this](ErrorCode error) {
    if (!error && listener) wait_for_clients();
  });
}

void HttpServer::State::adopt(Listener::Accepted accepted) {
  ServerLoop& loop = *loops[next_loop++ % loops.size()];
  ErrorCode error;
  Socket socket(loop.context);
  socket.assign(asio::generic::stream_protocol(accepted.family, 0), accepted.descriptor, error);
  if (error) {
    ::close(accepted.descriptor);
    return;
  }
  ++shared.connections;
  asio::post(
      loop.context, [this, &loop, socket = std::move(socket), remote = std::move(accepted.remote)]() mutable {
        auto transport = shared.tls ? make_tls_server_transport(std::move(socket), *shared.tls)
                                    : make_plain_transport(std::move(socket));
        const auto connection = std::make_shared<Connection>(loop, std::move(transport), std::move(remote));
        loop.connections.emplace(connection.get(), connection);
        connection->start();
      });
}

void HttpServer::State::stop_accepting() {
  ErrorCode ignored;
  readable->close(ignored);
  accept_pause->cancel();
  listener.reset();
}

HttpServer::HttpServer(const HttpServerOptions& options, Handler handler, OnDone on_done)
    : state_(std::make_unique<State>(options, std::move(handler), std::move(on_done))) {}

HttpServer::~HttpServer() {
  stop(0);
}

void HttpServer::start() {
  raise_file_limit();
  state_->wait_for_clients();
  for (const auto& loop : state_->loops) {
    loop->start_sweeping();
    state_->threads.emplace_back([&context = loop->context] { run_to_end(context); });
  }
}

std::uint16_t HttpServer::port() const {
  return state_->port;
}

std::size_t HttpServer::connections() const {
  return state_->shared.connections;
}

void HttpServer::stop(double drain_seconds) {
  State& state = *state_;
  if (std::exchange(state.stopped, true)) return;
  if (state.threads.empty()) return state.stop_accepting();
  state.shared.draining = true;
  asio::post(state.loops[0]->context, [&state] { state.stop_accepting(); });
  for (const auto& loop : state.loops) asio::post(loop->context, [&loop] { loop->drain(); });
  for (const Stopwatch watch; state.shared.connections > 0 && watch.seconds() < drain_seconds;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  for (const auto& loop : state.loops) {
    asio::post(loop->context, [&loop] {
      loop->close_all();
      loop->context.stop();
    });
  }
  for (std::thread& thread : state.threads) thread.join();
}

}  // namespace bise
