// How much a server adds to the time of each server-sent event when many clients stream at once.
//
//   http_streams_benchmark                       1000 streams, an event each 50 ms, from a bise HttpServer in
//                                                a process of its own, for 10 s
//   http_streams_benchmark --url=http://127.0.0.1:8000/v1/completions --body='{"stream":true,...}' --pid=N
//                                                any server: the delay between two events of a stream
//                                                against --interval-ms; its resident memory when --pid is
//                                                given
//
// The own server's producer is one thread, as the engine is: each interval it writes one event to every
// stream and the time at which the interval began goes with it. The added latency of an event is the time
// from there until this process has read it: the producer's own loop, the server, the kernel and the client.
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/sse.h"

namespace bise {
namespace {

using Clock = std::chrono::steady_clock;  // CLOCK_MONOTONIC: the same in both processes

struct Options {
  int streams = 1000;
  int events = 200;  // of each stream
  double interval_ms = 50;
  int threads = 1;        // of the own server
  int padding = 250;      // bytes of an event beside its time, about a chat completion chunk
  int rounds = 1;         // one after another, to see the memory stay flat
  std::string url, body;  // another server, and what to POST
  int pid = 0;
};

std::int64_t nanoseconds(Clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

double resident_mib(int pid) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) return std::stod(line.substr(6)) / 1024;
  }
  return 0;
}

double cpu_seconds(int pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string word;
  double ticks = 0;
  for (int field = 1; field <= 15 && file >> word; ++field) {
    if (field >= 14) ticks += std::stod(word);
  }
  return ticks / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

// The child: serves until it is killed.
[[noreturn]] void serve(const Options& options, int port_pipe) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  struct Stream {
    std::shared_ptr<HttpExchange> exchange;
    int sent = 0;
  };
  std::mutex mutex;
  std::vector<Stream> streams, joining;
  HttpServerOptions server_options;
  server_options.host = "127.0.0.1";
  server_options.port = 0;
  server_options.threads = options.threads;
  HttpServer server(server_options, [&](std::shared_ptr<HttpExchange> exchange) {
    exchange->start_stream(200, {{"content-type", "text/event-stream; charset=utf-8"}});
    const std::lock_guard lock(mutex);
    joining.push_back({std::move(exchange)});
  });
  server.start();
  const std::uint16_t port = server.port();
  if (::write(port_pipe, &port, sizeof port) != sizeof port) _exit(1);
  const std::string padding(static_cast<std::size_t>(options.padding), 'x');
  auto tick = Clock::now();
  for (;;) {
    tick += std::chrono::microseconds(static_cast<std::int64_t>(options.interval_ms * 1000));
    std::this_thread::sleep_until(tick);
    {
      const std::lock_guard lock(mutex);
      std::move(joining.begin(), joining.end(), std::back_inserter(streams));
      joining.clear();
    }
    const std::string frame = sse_frame(fmt::format("{{\"t\":{},\"p\":\"{}\"}}", nanoseconds(tick), padding));
    for (Stream& stream : streams) {
      stream.exchange->write(frame);
      if (++stream.sent == options.events) {
        stream.exchange->write(sse_frame("[DONE]"));
        stream.exchange->finish();
      }
    }
    std::erase_if(streams, [&](const Stream& stream) { return stream.sent == options.events; });
  }
}

double percentile(std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  return sorted[std::min(sorted.size() - 1,
                         static_cast<std::size_t>(share * static_cast<double>(sorted.size())))];
}

// One round of streams; prints its line. Returns how many streams were not whole.
int measure(const Options& options, HttpClient& client, const std::string& url, int pid) {
  struct Stream {
    SseParser parser;
    int events = 0;
    bool done = false, good = false;
    Clock::time_point last;
  };
  std::vector<Stream> streams(static_cast<std::size_t>(options.streams));
  std::vector<double> added;  // ms
  added.reserve(static_cast<std::size_t>(options.streams) * static_cast<std::size_t>(options.events));
  std::atomic<int> running = options.streams;
  const bool own = options.url.empty();
  for (Stream& stream : streams) {
    HttpCall call;
    call.url = url;
    if (!own) {
      call.method = "POST";
      call.body = options.body;
      call.headers.set("Content-Type", "application/json");
    }
    call.on_body = [&](std::string_view bytes) {
      const auto now = Clock::now();
      stream.parser.feed(bytes, [&](const SseEvent& event) {
        if (event.data == "[DONE]") {
          stream.done = true;
          return;
        }
        std::int64_t sent = 0;
        if (own) {
          std::from_chars(event.data.data() + 5, event.data.data() + event.data.size(), sent);
          added.push_back(static_cast<double>(nanoseconds(now) - sent) * 1e-6);
        } else if (stream.events > 0) {
          const std::chrono::duration<double, std::milli> delay = now - stream.last;
          added.push_back(std::max(0.0, delay.count() - options.interval_ms));
        }
        stream.last = now;
        ++stream.events;
      });
      return true;
    };
    client.send(std::move(call), [&](HttpResult result) {
      stream.good = result.ok();
      if (!result.ok()) fmt::print(stderr, "{} {}\n", result.status, result.error);
      --running;
    });
  }
  const Stopwatch watch;
  double most_mib = 0;
  const double cpu_before = pid ? cpu_seconds(pid) : 0;
  while (running > 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    if (pid) most_mib = std::max(most_mib, resident_mib(pid));
  }
  const double seconds = watch.seconds();
  std::sort(added.begin(), added.end());
  int incomplete = 0;
  for (const Stream& stream : streams) {
    incomplete += !stream.good || !stream.done || (own && stream.events != options.events);
  }
  fmt::print(
      "{} streams, {} events in {:.1f} s ({:.0f}/s): added p50 {:.2f} ms, p90 {:.2f}, p99 {:.2f}, "
      "p99.9 {:.2f}, max {:.2f}; not whole {}",
      options.streams, added.size(), seconds, static_cast<double>(added.size()) / seconds,
      percentile(added, 0.5), percentile(added, 0.9), percentile(added, 0.99), percentile(added, 0.999),
      percentile(added, 1), incomplete);
  if (pid) {
    fmt::print("; server {:.1f} MiB resident, {:.2f} cores", most_mib,
               (cpu_seconds(pid) - cpu_before) / seconds);
  }
  fmt::print("\n");
  std::fflush(stdout);
  return incomplete;
}

int run(const Options& options) {
  rlimit files;
  ::getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &files);
  std::string url = options.url;
  int pid = options.pid;
  if (url.empty()) {
    int pipe[2];
    if (::pipe(pipe) != 0) throw Error("no pipe");
    pid = ::fork();
    if (pid == 0) serve(options, pipe[1]);
    std::uint16_t port = 0;
    if (::read(pipe[0], &port, sizeof port) != sizeof port) throw Error("the server did not start");
    url = fmt::format("http://127.0.0.1:{}/stream", port);
  }
  const double idle_mib = pid ? resident_mib(pid) : 0;
  int incomplete = 0;
  {
    HttpClient client;
    for (int round = 0; round < options.rounds; ++round) incomplete += measure(options, client, url, pid);
  }
  if (pid) fmt::print("server before the first stream: {:.1f} MiB resident\n", idle_mib);
  if (options.url.empty()) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
  return incomplete == 0 ? 0 : 2;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    const std::size_t equals = argument.find('=');
    const std::string_view name = argument.substr(0, equals);
    const std::string value(equals == argument.npos ? "" : argument.substr(equals + 1));
    if (name == "--streams")
      options.streams = std::stoi(value);
    else if (name == "--events")
      options.events = std::stoi(value);
    else if (name == "--interval-ms")
      options.interval_ms = std::stod(value);
    else if (name == "--threads")
      options.threads = std::stoi(value);
    else if (name == "--padding")
      options.padding = std::stoi(value);
    else if (name == "--rounds")
      options.rounds = std::stoi(value);
    else if (name == "--url")
      options.url = value;
    else if (name == "--body")
      options.body = value;
    else if (name == "--pid")
      options.pid = std::stoi(value);
    else
      throw Error("unknown flag")
          .got(std::string(argument))
          .expected(
              "--streams= --events= --interval-ms= --threads= --padding= --rounds= --url= --body= --pid=");
  }
  return options;
}

}  // namespace
}  // namespace bise

int main(int argc, char** argv) {
  try {
    return bise::run(bise::parse(argc, argv));
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
