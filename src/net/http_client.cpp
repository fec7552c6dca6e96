#include "net/http_client.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <charconv>
#include <future>
#include <iterator>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "net/client_call.h"

namespace bise {
namespace {
namespace asio = boost::asio;

// A client that holds more unused connections than this closes the oldest: servers count them too.
constexpr std::size_t kMostIdlePerHost = 256;

}  // namespace

std::unique_ptr<Transport> ClientShared::take_idle(const std::string& key) {
  const auto found = idle.find(key);
  if (found == idle.end()) return nullptr;
  auto& kept = found->second;
  while (!kept.empty()) {
    Idle newest = std::move(kept.back());
    kept.pop_back();
    if (newest.transport->quiet()) return std::move(newest.transport);
  }
  idle.erase(found);
  return nullptr;
}

void ClientShared::keep_idle(const std::string& key, std::unique_ptr<Transport> transport) {
  auto& kept = idle[key];
  if (kept.size() >= kMostIdlePerHost) kept.pop_front();
  kept.push_back({std::move(transport), std::chrono::steady_clock::now()});
}

void ClientShared::drop_old() {
  const auto oldest = std::chrono::steady_clock::now() - in_seconds(options.keep_idle);
  for (auto entry = idle.begin(); entry != idle.end();) {
    std::erase_if(entry->second, [&](const Idle& kept) { return kept.since < oldest; });
    entry = entry->second.empty() ? idle.erase(entry) : std::next(entry);
  }
}

struct HttpClient::State {
  explicit State(HttpClientOptions options) : sweep(context), work(context.get_executor()) {
    if (!options.proxy.empty()) {
      shared.proxy = parse_url(options.proxy);
      if (shared.proxy->tls()) throw Error("a proxy is reached over http").at(shared.proxy->text());
    }
    shared.tls = std::make_unique<TlsContext>(
        TlsContext::Client{options.ca_certs, options.certfile, options.keyfile, options.verify_certificates});
    shared.options = std::move(options);
    sweep_later();
    thread = std::thread([this] { context.run(); });
  }

  // Timeouts are looked for some times a second, so that a call needs no timer of its own.
  void sweep_later() {
    sweep.expires_after(std::chrono::milliseconds(20));
    sweep.async_wait([this](ErrorCode error) {
      if (error || shared.closing) return;
      std::vector<std::shared_ptr<ClientCall>> all;
      all.reserve(shared.calls.size());
      for (const auto& [_, call] : shared.calls) all.push_back(call);
      for (const auto& call : all) call->check_deadlines();
      shared.drop_old();
      sweep_later();
    });
  }

  asio::io_context context{1};
  asio::steady_timer sweep;
  asio::executor_work_guard<asio::io_context::executor_type> work;
  ClientShared shared;
  std::atomic<std::uint64_t> next_id = 1;
  std::thread thread;
};

HttpClient::HttpClient(HttpClientOptions options) : state_(std::make_unique<State>(std::move(options))) {}

HttpClient::~HttpClient() {
  State& state = *state_;
  asio::post(state.context, [&state] {
    state.shared.closing = true;
    const auto all = state.shared.calls;
    for (const auto& [_, call] : all) call->fail(HttpFailure::kCancelled, "the client is closing");
    state.sweep.cancel();
    state.work.reset();
  });
  state.thread.join();
}

std::uint64_t HttpClient::send(HttpCall call, OnDone on_done) {
  const std::uint64_t id = state_->next_id++;
  auto running =
      std::make_shared<ClientCall>(state_->shared, state_->context, id, std::move(call), std::move(on_done));
  asio::post(state_->context, [&state = *state_, id, running = std::move(running)] {
    state.shared.calls.emplace(id, running);
    if (state.shared.closing) return running->fail(HttpFailure::kCancelled, "the client is closing");
    running->start();
  });
  return id;
}

void HttpClient::cancel(std::uint64_t id) {
  asio::post(state_->context, [&state = *state_, id] {
    const auto found = state.shared.calls.find(id);
    if (found == state.shared.calls.end()) return;
    const auto call = found->second;
    call->fail(HttpFailure::kCancelled, "cancelled");
  });
}

HttpResult HttpClient::fetch(HttpCall call) {
  check(std::this_thread::get_id() != state_->thread.get_id(), "fetch() would wait for its own thread");
  std::promise<HttpResult> promise;
  auto result = promise.get_future();
  send(std::move(call), [&promise](HttpResult done) { promise.set_value(std::move(done)); });
  return result.get();
}

std::optional<ContentRange> parse_content_range(std::string_view field) {
  constexpr std::string_view kUnit = "bytes ";
  if (!field.starts_with(kUnit)) return std::nullopt;
  const char* at = field.data() + kUnit.size();
  const char* const end = field.data() + field.size();
  const auto number = [&](std::uint64_t& value) {
    const auto [stop, error] = std::from_chars(at, end, value);
    at = stop;
    return error == std::errc();
  };
  const auto sign = [&](char expected) { return at < end && *at++ == expected; };
  ContentRange range;
  if (!number(range.first) || !sign('-') || !number(range.last) || !sign('/')) return std::nullopt;
  if (range.last < range.first) return std::nullopt;
  if (end - at == 1 && *at == '*') return range;
  std::uint64_t total;
  if (!number(total) || at != end || total <= range.last) return std::nullopt;
  range.total = total;
  return range;
}

}  // namespace bise
