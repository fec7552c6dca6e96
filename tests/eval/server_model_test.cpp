// Evaluation through a server: what is sent, what is read, what is tried again, what is refused.
#include "eval/server_model.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>

#include "base/clock.h"
#include "base/error.h"
#include "net/http_server.h"

namespace bise {
namespace {

// A completions server whose tokens are the bytes of the text; token t has log-probability -t / 100 and the
// best one beside it is 0.1 better where t is odd.
class ByteServer {
 public:
  ByteServer()
      : server_(
            [] {
              HttpServerOptions options;
              options.host = "127.0.0.1";
              options.port = 0;
              return options;
            }(),
            [this](std::shared_ptr<HttpExchange> exchange) { answer(*exchange); }) {
    server_.start();
  }

  std::string url() const { return "http://127.0.0.1:" + std::to_string(server_.port()); }

  std::atomic<int> failures = 0;    // so many calls get status 503 first
  std::atomic<bool> echoes = true;  // else log-probabilities are of the answer alone
  std::mutex mutex;
  std::vector<Json> requests;

 private:
  void answer(HttpExchange& exchange) {
    const std::string path = exchange.request().path;
    if (path != "/v1/models" && failures-- > 0) return exchange.respond({503, {}, "busy"});
    Json reply;
    if (path == "/v1/models") {
      reply = {{"data", {{{"id", "bytes"}}}}};
    } else {
      const Json body = parse_json(exchange.request().body, "request");
      if (path == "/tokenize") {
        reply["tokens"] = Json::array();
        for (const char c : body["prompt"].get<std::string>()) reply["tokens"].push_back(static_cast<int>(c));
      } else {
        const std::lock_guard lock(mutex);
        requests.push_back(body);
        reply = body.contains("echo") ? scores(body["prompt"][0]) : text();
      }
    }
    exchange.respond({200, {{"Content-Type", "application/json"}}, json_text(reply)});
  }
  Json text() const { return {{"choices", {{{"index", 0}, {"text", " 42\n#### 42\nQuestion: more"}}}}}; }
  Json scores(const Json& prompt) const {
    Json own = Json::array(), best = Json::array();
    for (std::size_t i = echoes ? 0 : prompt.size(); i <= prompt.size(); ++i) {
      const int token = i < prompt.size() ? prompt[i].get<int>() : 1;
      own.push_back(i == 0 ? Json() : Json(-token / 100.0));
      Json map = {{"own", -token / 100.0}};
      if (token % 2) map["other"] = -token / 100.0 + 0.1;
      best.push_back(i == 0 ? Json() : map);
    }
    return {{"choices", {{{"index", 0}, {"logprobs", {{"token_logprobs", own}, {"top_logprobs", best}}}}}}};
  }

  HttpServer server_;
};

ServerModelOptions options_for(const ByteServer& server) {
  ServerModelOptions options;
  options.base_url = server.url() + "/v1/completions";
  options.first_wait = 0.01;
  return options;
}

Likelihood score(ServerModel& model, const std::string& context, const std::string& continuation) {
  const LikelihoodRequest request{context, continuation};
  Likelihood result;
  model.loglikelihood({&request, 1}, [&](std::size_t, const Likelihood& answer) { result = answer; });
  return result;
}

TEST(ServerModel, ScoresTheContinuationAlone) {
  ByteServer server;
  ServerModel model(options_for(server));
  EXPECT_EQ(model.model(), "bytes");
  // 'b' is 98 and even, 'a' is 97 and odd; the blank goes over to the continuation.
  const Likelihood even = score(model, "question ", "bb"), odd = score(model, "question", "ba");
  EXPECT_NEAR(even.logprob, -(32 + 98 + 98) / 100.0, 1e-12);
  EXPECT_TRUE(even.greedy);
  EXPECT_NEAR(odd.logprob, -(98 + 97) / 100.0, 1e-12);
  EXPECT_FALSE(odd.greedy);
  const Json& sent = server.requests[0];
  EXPECT_EQ(sent["max_tokens"], 1);
  EXPECT_EQ(sent["logprobs"], 1);
  EXPECT_EQ(sent["echo"], true);
  EXPECT_EQ(sent["model"], "bytes");
}

TEST(ServerModel, GeneratesUntilAStop) {
  ByteServer server;
  ServerModel model(options_for(server));
  const GenerateRequest request{"Question: q\nAnswer:", {"Question:"}, 32, 0, 1};
  std::string text;
  model.generate({&request, 1}, [&](std::size_t, const std::string& answer) { text = answer; });
  EXPECT_EQ(text, " 42\n#### 42\n");
  EXPECT_EQ(server.requests[0]["stop"], (Json{"Question:"}));
  EXPECT_EQ(server.requests[0]["max_tokens"], 32);
}

TEST(ServerModel, TriesAgainAndGivesUp) {
  ByteServer server;
  ServerModel model(options_for(server));
  server.failures = 2;
  EXPECT_NEAR(score(model, "x", "b").logprob, -0.98, 1e-12);
  server.failures = 1000;
  EXPECT_THROW(score(model, "x", "b"), Error);
}

TEST(ServerModel, ServersWithoutEchoAreRefused) {
  ByteServer server;
  server.echoes = false;
  ServerModel model(options_for(server));
  try {
    score(model, "question", "ba");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("echo"), std::string::npos) << error.what();
  }
}

TEST(ServerModelFuzz, AnswersAreReadOrRefused) {
  const std::string seed =
      R"({"choices":[{"index":0,"text":"a","logprobs":{"token_logprobs":[null,-1.5,-2,-0.5],)"
      R"("top_logprobs":[null,{"a":-1.5},{"b":-1,"c":-2},{"d":-0.5}]}}]})";
  EXPECT_NEAR(completion_scores(seed, 1, 3, "seed").logprob, -3.5, 1e-12);
  std::mt19937 random(20261121);
  const Stopwatch watch;
  for (int i = 0; i < 20000 && watch.seconds() < 2; ++i) {
    std::string text = seed;
    for (unsigned edits = 1 + random() % 3; edits > 0 && !text.empty(); --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0: text.erase(at, 1 + random() % 10); break;
        case 1: text.insert(at, text.substr(random() % text.size(), random() % 10)); break;
        default: text[at] = static_cast<char>(random() % 256); break;
      }
    }
    try {
      completion_scores(text, 1, 3, "mutated");
    } catch (const Error&) {
    }
    try {
      completion_text(text, "mutated");
    } catch (const Error&) {
    }
  }
}

}  // namespace
}  // namespace bise
