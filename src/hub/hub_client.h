// Requests to the hub: with its token, tried again where that may help, and with its refusals in words. The
// settings are plain values; the command line reads the environment.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <set>
#include <string>

#include "base/error.h"
#include "hub/names.h"
#include "net/http_client.h"

namespace bise {

struct HubSettings {
  std::string endpoint = "https://huggingface.co";
  std::string datasets_endpoint = "https://datasets-server.huggingface.co";
  std::string token;                // or ""
  std::filesystem::path cache_dir;  // huggingface_hub's HF_HUB_CACHE
  bool offline = false;             // every request is an Error
  HttpClientOptions http;
  double first_wait = 1;      // s before the second attempt; doubles up to 30
  double longest_wait = 300;  // s that a server may ask us to wait
  int max_attempts = 6;       // without a byte between them
};

// Seconds that an answer with 429 or 503 asks to wait: Retry-After (seconds or a date) or the IETF draft's
// RateLimit field with nothing remaining ("\"api\";r=0;t=55"). 0 where it says nothing.
double asked_wait(const HttpHeaders& headers, std::int64_t now_unix);

class HubClient {
 public:
  explicit HubClient(const HubSettings& settings);

  const HubSettings& settings() const { return settings_; }

  // A call for `url` with the token, when that is at one of our endpoints.
  HttpCall call(const std::string& method, const std::string& url) const;
  // One attempt; stop() cancels it.
  HttpResult perform(HttpCall call);
  // Fetches until it succeeds; `what` names the thing in errors ("the files of a/b"). `result` is 2xx, or 3xx
  // where call.max_redirects is 0. Throws Error in words.
  HttpResult fetch(const HttpCall& call, const std::string& what);
  // After a failed attempt, 0 being the first: sleeps where another may help. Throws the Error otherwise, and
  // when stop() was called.
  void wait_to_retry(const HttpResult& result, int attempt, const std::string& what);
  // The words for an answer that is no success.
  Error refusal(const HttpResult& result, const std::string& what) const;
  // Ends what all threads do and wait for, until go_on().
  void stop();
  void go_on() { stopped_ = false; }
  const std::atomic<bool>& stopped() const { return stopped_; }

 private:
  HubSettings settings_;
  std::atomic<bool> stopped_ = false;
  std::mutex mutex_;  // guards in_flight_
  std::set<std::uint64_t> in_flight_;
  HttpClient http_;
};

}  // namespace bise
