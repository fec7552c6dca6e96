#include "eval/server_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "base/error.h"
#include "eval/local_model.h"
#include "text/stop_strings.h"

namespace bise {
namespace {

constexpr double kLongestWait = 10;  // s

const Json& first_choice(const Json& answer, const std::string& where) {
  const Json& choices = require(answer, "choices", where);
  if (!choices.is_array() || choices.empty() || !choices[0].is_object())
    throw Error("the answer has no choice").at(where);
  return choices[0];
}

double finite_number(const Json& value, const std::string& where) {
  if (!value.is_number() || !std::isfinite(value.get<double>()))
    throw Error("a log-probability is not a finite number").at(where).got(value.dump());
  return value.get<double>();
}

std::string without_suffix(std::string text, std::string_view suffix) {
  if (text.ends_with(suffix)) text.erase(text.size() - suffix.size());
  return text;
}

bool may_succeed_later(const HttpResult& result) {
  return result.failure != HttpFailure::kNone || result.status == 429 || result.status >= 500;
}

Error refusal(const HttpResult& result, const std::string& url) {
  if (result.failure != HttpFailure::kNone)
    return Error("the server does not answer: {}", result.error).at(url);
  return Error("the server refused")
      .at(url)
      .expected("status 200")
      .got(fmt::format("status {}: {}", result.status, result.body.substr(0, 300)));
}

}  // namespace

Likelihood completion_scores(const std::string& body, std::size_t context, std::size_t prompt,
                             const std::string& where) {
  const Json answer = parse_json(body, where);
  const Json& logprobs = require(first_choice(answer, where), "logprobs", where);
  const Json& own = require(logprobs, "token_logprobs", where);
  const Json& best = require(logprobs, "top_logprobs", where);
  if (!own.is_array() || !best.is_array() || own.size() != prompt + 1 || best.size() != own.size())
    throw Error("the server gives no log-probabilities of the prompt (does it know `echo`?)")
        .at(where)
        .expected(fmt::format("{} numbers", prompt + 1))
        .got(fmt::format("{}", own.size()));
  Likelihood likelihood{0, true};
  for (std::size_t i = context; i < prompt; ++i) {
    const double logprob = finite_number(own[i], where);
    likelihood.logprob += logprob;
    if (!best[i].is_object() || best[i].empty()) throw Error("a token has no best ones beside it").at(where);
    for (const Json& other : best[i]) likelihood.greedy &= finite_number(other, where) <= logprob;
  }
  return likelihood;
}

std::string completion_text(const std::string& body, const std::string& where) {
  const Json answer = parse_json(body, where);
  return require_string(first_choice(answer, where), "text", where);
}

ServerModel::ServerModel(ServerModelOptions options)
    : options_(std::move(options)), client_([&] {
        HttpClientOptions http;
        http.total_timeout = options_.timeout;
        return http;
      }()) {
  root_ = without_suffix(options_.base_url, "/");
  root_ = without_suffix(without_suffix(root_, "/v1/completions"), "/v1");
  completions_ = root_ + "/v1/completions";
  const std::string url = root_ + "/v1/models";
  if (!options_.model.empty()) return;
  const Json models = parse_json(fetch("GET", url, ""), url);
  const Json& list = require(models, "data", url);
  if (!list.is_array() || list.empty()) throw Error("the server lists no model").at(url);
  options_.model = require_string(list[0], "id", url);
}

HttpCall ServerModel::call(const std::string& method, const std::string& url, std::string body) const {
  HttpCall call;
  call.method = method;
  call.url = url;
  if (!body.empty()) call.headers.set("Content-Type", "application/json");
  if (!options_.api_key.empty()) call.headers.set("Authorization", "Bearer " + options_.api_key);
  call.body = std::move(body);
  return call;
}

std::string ServerModel::fetch(const std::string& method, const std::string& url, const std::string& body) {
  double wait = options_.first_wait;
  for (std::int64_t attempt = 0;; ++attempt) {
    HttpResult result = client_.fetch(call(method, url, body));
    if (result.ok()) return std::move(result.body);
    if (!may_succeed_later(result) || attempt >= options_.max_retries) throw refusal(result, url);
    std::this_thread::sleep_for(std::chrono::duration<double>(wait));
    wait = std::min(2 * wait, kLongestWait);
  }
}

// Answers come on the client's thread and wait here for ours. A call that failed and may succeed later is
// sent again by this thread after the others of its time.
void ServerModel::post_all(const std::string& url, const std::vector<std::string>& bodies,
                           const OnBody& on_body) {
  struct Arrived {
    std::size_t index;
    HttpResult result;
  };
  struct Shared {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Arrived> arrived;
  };
  const auto shared = std::make_shared<Shared>();
  std::deque<std::size_t> waiting;
  for (std::size_t i = 0; i < bodies.size(); ++i) waiting.push_back(i);
  std::vector<std::int64_t> attempts(bodies.size());
  std::int64_t in_flight = 0;
  double wait = options_.first_wait;
  for (std::size_t finished = 0; finished < bodies.size();) {
    while (!waiting.empty() && in_flight < options_.num_concurrent) {
      const std::size_t index = waiting.front();
      waiting.pop_front();
      ++in_flight;
      client_.send(call("POST", url, bodies[index]), [shared, index](HttpResult result) {
        const std::lock_guard lock(shared->mutex);
        shared->arrived.push_back({index, std::move(result)});
        shared->changed.notify_one();
      });
    }
    std::unique_lock lock(shared->mutex);
    shared->changed.wait(lock, [&] { return !shared->arrived.empty(); });
    Arrived arrived = std::move(shared->arrived.front());
    shared->arrived.pop_front();
    lock.unlock();
    --in_flight;
    if (arrived.result.ok()) {
      on_body(arrived.index, arrived.result.body);
      ++finished;
      wait = options_.first_wait;
      continue;
    }
    if (!may_succeed_later(arrived.result) || ++attempts[arrived.index] > options_.max_retries)
      throw refusal(arrived.result, url);
    std::this_thread::sleep_for(std::chrono::duration<double>(wait));
    wait = std::min(2 * wait, kLongestWait);
    waiting.push_back(arrived.index);
  }
}

std::vector<std::int32_t> ServerModel::encode(std::string_view text, bool special_tokens) {
  if (options_.tokenizer) return encode_text(*options_.tokenizer, text, special_tokens);
  const std::string url = root_ + "/tokenize";
  const Json body = {
      {"model", options_.model}, {"prompt", std::string(text)}, {"add_special_tokens", special_tokens}};
  const Json answer = parse_json(fetch("POST", url, json_text(body)), url);
  std::vector<std::int32_t> tokens;
  for (const Json& token : require(answer, "tokens", url)) {
    if (!token.is_number_integer()) throw Error("a token is not a number").at(url);
    tokens.push_back(token.get<std::int32_t>());
  }
  return tokens;
}

void ServerModel::loglikelihood(std::span<const LikelihoodRequest> requests, const OnLikelihood& done) {
  const EncodeText encode_with = [&](std::string_view text, bool special) { return encode(text, special); };
  std::int32_t prefix = 0;
  if (options_.tokenizer)
    prefix = options_.tokenizer->bos_token_id().value_or(options_.tokenizer->eos_token_id().value_or(0));
  std::vector<std::string> bodies;
  std::vector<ScoredSequence> sequences;
  std::vector<std::size_t> request_of, missing(requests.size());
  std::vector<Likelihood> answers(requests.size(), {0, true});
  for (std::size_t i = 0; i < requests.size(); ++i) {
    for (ScoredSequence& sequence : sequences_of(requests[i], encode_with, prefix, options_.max_length - 2)) {
      const Json body = {{"model", options_.model},
                         {"prompt", Json::array({sequence.token_ids})},
                         {"temperature", 0},
                         {"max_tokens", 1},
                         {"logprobs", 1},
                         {"seed", options_.seed},
                         {"echo", true}};
      bodies.push_back(json_text(body));
      sequences.push_back(std::move(sequence));
      request_of.push_back(i);
      ++missing[i];
    }
    if (missing[i] == 0) done(i, answers[i]);
  }
  post_all(completions_, bodies, [&](std::size_t s, const std::string& body) {
    const Likelihood part = completion_scores(body, static_cast<std::size_t>(sequences[s].first),
                                              sequences[s].token_ids.size(), completions_);
    const std::size_t i = request_of[s];
    answers[i].logprob += part.logprob;
    answers[i].greedy &= part.greedy;
    if (--missing[i] == 0) done(i, answers[i]);
  });
}

void ServerModel::generate(std::span<const GenerateRequest> requests, const OnText& done) {
  std::vector<std::string> bodies;
  for (const GenerateRequest& request : requests) {
    std::vector<std::int32_t> prompt = encode(request.context);
    const std::int64_t room = options_.max_length - request.max_gen_toks;
    if (room < 1)
      throw Error("max_gen_toks leaves no room for a prompt")
          .expected("less than " + std::to_string(options_.max_length))
          .got(std::to_string(request.max_gen_toks));
    if (static_cast<std::int64_t>(prompt.size()) > room) prompt.erase(prompt.begin(), prompt.end() - room);
    Json body = {{"prompt", prompt},
                 {"model", options_.model},
                 {"max_tokens", request.max_gen_toks},
                 {"temperature", request.temperature},
                 {"stop", request.until},
                 {"seed", options_.seed}};
    if (request.top_p != 1) body["top_p"] = request.top_p;
    bodies.push_back(json_text(body));
  }
  post_all(completions_, bodies, [&](std::size_t i, const std::string& body) {
    StopStrings stop(requests[i].until);
    std::string text = stop.push(completion_text(body, completions_));
    text += stop.finish();
    done(i, text);
  });
}

}  // namespace bise
