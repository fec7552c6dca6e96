#include "hub/hub_client.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <ctime>
#include <future>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "base/json.h"
#include "base/log.h"
#include "net/url.h"

namespace bise {
namespace {

constexpr double kLongestBackoff = 30;

std::optional<double> whole_number(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// "Wed, 21 Oct 2026 07:28:00 GMT" (RFC 9110, section 5.6.7).
std::optional<std::int64_t> http_date(const std::string& text) {
  std::tm parts{};
  const char* end = ::strptime(text.c_str(), "%a, %d %b %Y %H:%M:%S GMT", &parts);
  if (!end || *end != '\0') return std::nullopt;
  return ::timegm(&parts);
}

double rate_limit_wait(std::string_view text) {
  std::string field(text);
  std::erase(field, ' ');
  const std::size_t remaining = field.find(";r="), reset = field.find(";t=");
  if (remaining == field.npos || reset == field.npos || field.compare(remaining + 3, 2, "0;") != 0) return 0;
  const std::string digits = field.substr(reset + 3);
  return whole_number(digits.substr(0, digits.find_first_not_of("0123456789"))).value_or(0);
}

bool may_help(const HttpResult& result) {
  switch (result.failure) {
    case HttpFailure::kNone:
      return result.status == 408 || result.status == 429 || (result.status >= 500 && result.status != 501);
    case HttpFailure::kConnect:
    case HttpFailure::kTimeout:
    case HttpFailure::kCut: return true;
    default: return false;
  }
}

// The reason in the answer itself: the hub's header, or {"error": "..."}.
std::string stated_reason(const HttpResult& result) {
  std::string reason;
  if (const auto message = result.headers.find("x-error-message")) reason = std::string(*message);
  if (const Json body = Json::parse(result.body, nullptr, false);
      reason.empty() && body.is_object() && body.contains("error") && body["error"].is_string())
    reason = body["error"].get<std::string>();
  reason.resize(std::min<std::size_t>(reason.size(), 300));
  std::ranges::replace_if(
      reason, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
  return reason;
}

std::string explanation(const HttpResult& result, const std::string& code, bool has_token) {
  const char* token =
      has_token ? "the token does not give access; it comes from --token, HF_TOKEN or `hf auth login`"
                : "there is no token: pass --token, set HF_TOKEN, or run `hf auth login`";
  if (code == "GatedRepo")
    return fmt::format(
        "the repository is gated: accept its conditions on its page, and use a token of that "
        "account ({})",
        token);
  if (code == "RevisionNotFound") return "there is no such revision";
  if (code == "EntryNotFound") return "there is no such file";
  if (code == "RepoNotFound" || result.status == 401)
    return fmt::format("there is no such repository, or it is private and {}", token);
  if (result.status == 403) return fmt::format("access is refused: {}", token);
  if (result.status == 404) return "it is not there";
  if (result.status == 429) return "too many requests: try again later, with a token for a higher limit";
  return std::string(status_phrase(result.status));
}

}  // namespace

double asked_wait(const HttpHeaders& headers, std::int64_t now_unix) {
  if (const auto after = headers.find("retry-after")) {
    if (const auto seconds = whole_number(*after)) return *seconds;
    if (const auto date = http_date(std::string(*after)))
      return static_cast<double>(std::max<std::int64_t>(0, *date - now_unix));
  }
  if (const auto limit = headers.find("ratelimit")) return rate_limit_wait(*limit);
  return 0;
}

HubClient::HubClient(const HubSettings& settings) : settings_(settings), http_(settings.http) {}

HttpCall HubClient::call(const std::string& method, const std::string& url) const {
  HttpCall call{.method = method, .url = url, .headers = {{"Accept-Encoding", "identity"}}};
  const Url target = parse_url(url);
  const bool ours = target.same_origin(parse_url(settings_.endpoint)) ||
                    target.same_origin(parse_url(settings_.datasets_endpoint));
  if (ours && !settings_.token.empty()) call.headers.add("Authorization", "Bearer " + settings_.token);
  return call;
}

HttpResult HubClient::perform(HttpCall call) {
  std::promise<HttpResult> promise;
  auto result = promise.get_future();
  std::uint64_t id = 0;
  {
    const std::lock_guard lock(mutex_);
    id = http_.send(std::move(call), [&](HttpResult done) { promise.set_value(std::move(done)); });
    in_flight_.insert(id);
    if (stopped_) http_.cancel(id);
  }
  HttpResult done = result.get();
  const std::lock_guard lock(mutex_);
  in_flight_.erase(id);
  return done;
}

void HubClient::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  for (const std::uint64_t id : in_flight_) http_.cancel(id);
}

HttpResult HubClient::fetch(const HttpCall& call, const std::string& what) {
  if (settings_.offline)
    throw Error("offline mode is on (HF_HUB_OFFLINE): {} cannot be asked for", what).at(call.url);
  for (int attempt = 0;; ++attempt) {
    HttpResult result = perform(call);
    const bool redirect = result.status >= 300 && result.status < 400 && call.max_redirects == 0;
    if (result.ok() || (redirect && result.failure == HttpFailure::kNone)) return result;
    wait_to_retry(result, attempt, what);
  }
}

void HubClient::wait_to_retry(const HttpResult& result, int attempt, const std::string& what) {
  const double asked = asked_wait(result.headers, std::time(nullptr));
  if (!may_help(result) || attempt + 1 >= settings_.max_attempts || asked > settings_.longest_wait)
    throw refusal(result, what);
  const double own = std::min(settings_.first_wait * std::exp2(attempt), kLongestBackoff);
  const double seconds = std::max(own, asked);
  const std::string reason = result.failure == HttpFailure::kNone
                                 ? fmt::format("{} {}", result.status, status_phrase(result.status))
                                 : result.error;
  log_debug("{}: {}; trying again in {:.1f} s", what, reason, seconds);
  if (asked > 10) log_info("{}: {}; the server asks to wait {:.0f} s", what, reason, asked);
  const auto until = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (std::chrono::steady_clock::now() < until) {
    if (stopped_) throw refusal(result, what);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

Error HubClient::refusal(const HttpResult& result, const std::string& what) const {
  if (result.failure != HttpFailure::kNone) return Error("cannot get {}: {}", what, result.error);
  const std::string code(result.headers.find("x-error-code").value_or(""));
  const std::string reason = stated_reason(result);
  std::string text = explanation(result, code, !settings_.token.empty());
  if (!reason.empty()) text += fmt::format(" (the server says: {})", reason);
  return Error("cannot get {}: {}", what, text).at(result.url).got(fmt::format("status {}", result.status));
}

}  // namespace bise
