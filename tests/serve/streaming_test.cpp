// Streams under load, and answers that end early: slow clients, clients that leave, engines that fail,
// limits.
#include <gtest/gtest.h>

#include <thread>

#include "tests/serve/test_service.h"

namespace bise {
namespace {

constexpr const char* kStream = R"({"prompt": "x", "stream": true, "ignore_eos": true, "max_tokens": 400})";

bool eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

TEST(Streaming, ClientsThatLeaveAreForgottenWithinAStep) {
  TestService service({.script = std::string(400, 'a'), .seconds_per_step = 0.005});
  for (const char* body :
       {kStream,
        R"({"prompt": ["x", "y"], "n": 2, "temperature": 1, "ignore_eos": true, "max_tokens": 400})"}) {
    const auto exchange = service.begin("/v1/completions", body);
    ASSERT_TRUE(eventually([&] { return service.engine().stats().running > 0; }));
    exchange->disconnect();
    EXPECT_TRUE(eventually([&] { return service.engine().stats().running == 0; }));
    EXPECT_EQ(service.engine().stats().used_blocks, 0);
  }
  EXPECT_TRUE(eventually([&] { return service.observer.finished_count() == 5; }));
  for (const FinishedSequence& sequence : service.observer.finished)
    EXPECT_EQ(sequence.reason, FinishReason::kAbort);
  // One that is gone before it is read does not start.
  const int accepted = service.observer.accepted;
  auto gone = std::make_shared<WaitingExchange>(
      HttpRequest{"POST", "/v1/completions", "", {{"content-type", "application/json"}}, kStream, "test"});
  gone->disconnect();
  service.service().completions(gone);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(service.observer.accepted, accepted);
}

TEST(Streaming, TokensOfASlowClientAreJoined) {
  const std::string script(300, 'a');
  TestService service({.script = script, .seconds_per_step = 0.001});
  const auto exchange = service.begin("/v1/completions", kStream);
  ASSERT_TRUE(exchange->wait_for_text("\"a"));
  exchange->set_unsent(1 << 20);
  ASSERT_TRUE(exchange->wait());
  const auto frames = frames_of(exchange->response().body);
  EXPECT_LT(frames.size(), 150u);
  std::string text;
  for (const Json& frame : frames) text += frame["choices"][0]["text"].get<std::string>();
  EXPECT_EQ(text, script);
}

TEST(Streaming, StreamIntervalCountsTokens) {
  TestService service({.script = "klmnopqrst", .lockstep = true});
  const auto frames = frames_of(
      service.ask("/v1/completions", R"({"prompt": "x", "stream": true, "stream_interval": 4})").body);
  std::vector<std::string> texts;
  for (const Json& frame : frames) texts.push_back(frame["choices"][0]["text"]);
  // The first and the last at once.
  EXPECT_EQ(texts, (std::vector<std::string>{"k", "lmno", "pqrs", "t"}));
}

TEST(Streaming, EngineFailuresEndEveryAnswer) {
  const auto fails_at = [](std::size_t at) {
    return [at](std::span<const std::int32_t>) {
      std::vector<std::int32_t> script(at, 117);
      script.push_back(-1);
      return script;
    };
  };
  {
    TestService service({.script_ids = fails_at(0)});
    const HttpResponse response = service.ask("/v1/completions", R"({"prompt": "x"})");
    EXPECT_EQ(response.status, 500) << response.body;
    EXPECT_EQ(Json::parse(response.body)["error"]["type"], "InternalServerError");
    EXPECT_EQ(service.ask("/v1/completions", R"({"prompt": "x"})").status, 500) << "the engine is dead";
  }
  TestService service({.script_ids = fails_at(3), .lockstep = true});
  const HttpResponse response = service.ask("/v1/completions", R"({"prompt": "x", "stream": true})");
  EXPECT_EQ(response.status, 200);
  const auto frames = frames_of(response.body);
  EXPECT_EQ(frames.front()["choices"][0]["text"], "a");
  EXPECT_EQ(frames.back()["error"]["code"], 500);
}

TEST(Streaming, StoppedEnginesAbortAndRefuse) {
  TestService service({.script = std::string(400, 'a'), .seconds_per_step = 0.005});
  const auto exchange = service.begin("/v1/completions", kStream);
  ASSERT_TRUE(exchange->wait_for_text("\"a"));
  service.engine().stop(0);
  ASSERT_TRUE(exchange->wait());
  const auto frames = frames_of(exchange->response().body);
  EXPECT_EQ(frames.back()["choices"][0]["finish_reason"], "abort");
  const HttpResponse late = service.ask("/v1/completions", R"({"prompt": "x"})");
  EXPECT_EQ(late.status, 503);
  EXPECT_TRUE(late.headers.find("retry-after").has_value());
}

TEST(Streaming, FullQueuesAnswer503) {
  EngineOptions engine;
  engine.max_num_seqs = 1;
  engine.max_num_queued_reqs = 1;
  TestService service({.script = std::string(400, 'a'), .seconds_per_step = 0.005, .engine = engine});
  const auto running = service.begin("/v1/completions", kStream);
  ASSERT_TRUE(running->wait_for_text("\"a"));
  const auto waiting = service.begin("/v1/completions", kStream);
  ASSERT_TRUE(eventually([&] { return service.engine().stats().waiting == 1; }));
  const HttpResponse refused = service.ask("/v1/completions", R"({"prompt": "x"})");
  EXPECT_EQ(refused.status, 503) << refused.body;
  EXPECT_EQ(Json::parse(refused.body)["error"]["type"], "Service Unavailable");
  EXPECT_EQ(service.observer.rejected, 1);
  // Several prompts run all or not at all.
  EXPECT_EQ(service.ask("/v1/completions", R"({"prompt": ["x", "y"]})").status, 503);
  waiting->disconnect();
  running->disconnect();
  EXPECT_TRUE(eventually([&] {
    const EngineStats stats = service.engine().stats();
    return stats.running == 0 && stats.waiting == 0 && stats.used_blocks == 0;
  }));
}

TEST(Streaming, ManyStreamsOnSeveralWorkersStayWhole) {
  EngineOptions engine;
  engine.max_num_seqs = 64;
  TestService service({.script = "the quick brown fox", .workers = 3, .engine = engine});
  std::vector<std::shared_ptr<WaitingExchange>> exchanges;
  for (int i = 0; i < 200; ++i) {
    exchanges.push_back(service.begin(
        "/v1/chat/completions",
        R"({"messages": [{"role": "user", "content": "x"}], "stream": true, "n": 2, "temperature": 1})"));
    if (i % 7 == 0) exchanges.back()->disconnect();
  }
  for (std::size_t i = 0; i < exchanges.size(); ++i) {
    if (i % 7 == 0) continue;
    ASSERT_TRUE(exchanges[i]->wait());
    std::string texts[2];
    for (const Json& frame : frames_of(exchanges[i]->response().body)) {
      const Json& choice = frame["choices"][0];
      texts[choice["index"].get<int>()] += choice["delta"].value("content", "");
    }
    EXPECT_EQ(texts[0], "the quick brown fox");
    EXPECT_EQ(texts[1], "the quick brown fox");
    EXPECT_EQ(exchanges[i]->answers(), 1);
  }
  EXPECT_EQ(service.observer.negative, 0);
}

}  // namespace
}  // namespace bise
