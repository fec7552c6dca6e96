// Streamed answers: framing, clients that leave or do not read, many at once, draining, sockets.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/error.h"
#include "tests/net/raw_client.h"
#include "tests/test_support.h"

namespace bise {
namespace {

constexpr const char* kGetHold = "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n";

TEST(HttpServerStreams, FramesAreChunksInHttp11AndBareInHttp10) {
  TestServer server;
  RawClient modern(server.port()), old(server.port()), head(server.port());
  modern.send("GET /stream?3 HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string answer = modern.read_until("0\r\n\r\n");
  EXPECT_NE(answer.find("transfer-encoding: chunked\r\n"), std::string::npos) << answer;
  EXPECT_TRUE(
      answer.ends_with("\r\n\r\n9\r\ndata: 0\n\n\r\n9\r\ndata: 1\n\n\r\n9\r\ndata: 2\n\n\r\n0\r\n\r\n"))
      << answer;

  old.send("GET /stream?2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const std::string bare = old.read_to_end();
  EXPECT_EQ(bare.find("transfer-encoding"), std::string::npos);
  EXPECT_TRUE(bare.ends_with("\r\n\r\ndata: 0\n\ndata: 1\n\n")) << bare;
  EXPECT_TRUE(old.at_end());

  head.send("HEAD /stream?2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_TRUE(head.read_to_end().ends_with("\r\n\r\n"));
}

TEST(HttpServerStreams, PiecesThatPileUpLeaveTogetherAndInOrder) {
  TestServer server;
  RawClient client(server.port());
  client.send(kGetHold);
  const auto held = server.wait_held();
  ASSERT_TRUE(held);
  held->start_stream(200, {});
  std::string expected;
  for (int i = 0; i < 20000; ++i) {
    held->write("<" + std::to_string(i) + ">");
    expected += "<" + std::to_string(i) + ">";
  }
  held->finish();
  std::string body = client.read_until("\r\n0\r\n\r\n");
  body.erase(0, body.find("\r\n\r\n") + 4);
  std::string joined;
  while (!body.empty()) {
    const std::size_t size = std::stoul(body, nullptr, 16), start = body.find("\r\n") + 2;
    joined += body.substr(start, size);
    body.erase(0, start + size + 2);
  }
  EXPECT_EQ(joined, expected);
  EXPECT_TRUE(eventually([&] { return held->unsent_bytes() == 0; }));
}

struct Leaving {
  const char* name;
  void (*leave)(RawClient&);
  bool streaming;
};
const Leaving kLeaving[] = {
    {"close while waiting", [](RawClient& client) { client.close(); }, false},
    {"reset while waiting", [](RawClient& client) { client.reset(); }, false},
    {"half-close while waiting", [](RawClient& client) { client.end_sending(); }, false},
    {"close within a stream", [](RawClient& client) { client.close(); }, true},
    {"reset within a stream", [](RawClient& client) { client.reset(); }, true},
    {"half-close within a stream", [](RawClient& client) { client.end_sending(); }, true},
};

TEST(HttpServerStreams, AClientThatLeavesIsNoticedWithin100Milliseconds) {
  for (const Leaving& test : kLeaving) {
    SCOPED_TRACE(test.name);
    TestServer server;
    RawClient client(server.port());
    client.send(kGetHold);
    const auto held = server.wait_held();
    ASSERT_TRUE(held);
    std::atomic<int> replaced = 0, called = 0;
    held->on_disconnect([&] { ++replaced; });
    held->on_disconnect([&] { ++called; });
    if (test.streaming) {
      held->start_stream(200, {});
      held->write("data: 1\n\n");
      client.read_until("data: 1");
    }
    EXPECT_FALSE(held->disconnected());
    const Stopwatch watch;
    test.leave(client);
    EXPECT_TRUE(eventually([&] { return called == 1; }, 2));
    EXPECT_LT(watch.seconds(), 0.1);
    EXPECT_TRUE(held->disconnected());
    int late = 0;
    held->on_disconnect([&] { ++late; });
    EXPECT_EQ(late, 1) << "runs at once";
    // The answer does nothing any more.
    if (test.streaming) {
      held->write("data: 2\n\n");
      held->finish();
    } else {
      held->respond({200, {}, "late"});
    }
    EXPECT_TRUE(server.wait_done(1));
    EXPECT_EQ(server.done().at(0).line, test.streaming ? "GET /hold 200" : "GET /hold 499");
    EXPECT_EQ(replaced, 0);
    EXPECT_EQ(called, 1);
    EXPECT_TRUE(eventually([&] { return server.server().connections() == 0; }));
  }
}

TEST(HttpServerStreams, AFinishedAnswerCallsNoDisconnect) {
  TestServer server;
  std::atomic<int> called = 0;
  {
    RawClient client(server.port());
    client.send(kGetHold);
    const auto held = server.wait_held();
    ASSERT_TRUE(held);
    held->on_disconnect([&] { ++called; });
    held->respond({200, {}, "done"});
    client.read_until("done");
  }
  EXPECT_TRUE(eventually([&] { return server.server().connections() == 0; }));
  EXPECT_EQ(called, 0);
}

TEST(HttpServerStreams, AForgottenStreamIsCutNotEnded) {
  TestServer server;
  server.route("/a", [](std::shared_ptr<HttpExchange> exchange) {
    exchange->start_stream(200, {});
    exchange->write("half");
  });
  RawClient client(server.port());
  client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  const std::string answer = client.read_to_end();
  EXPECT_TRUE(client.at_end());
  EXPECT_FALSE(answer.ends_with("0\r\n\r\n")) << answer;
}

// Writes until the kernel's buffers are full and 1 MiB waits behind them.
void fill(HttpExchange& exchange, const std::string& piece) {
  for (int rest = 0; rest < 5 && !exchange.disconnected();) {
    if (exchange.unsent_bytes() < (1u << 20)) {
      exchange.write(piece);
      rest = 0;
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      ++rest;
    }
  }
}

TEST(HttpServerStreams, AReaderThatStopsIsCutAtTheLimitOrAfterTheTimeout) {
  TestServer patient([](HttpServerOptions& options) { options.max_unsent_bytes = 4 << 20; });
  TestServer server([](HttpServerOptions& options) { options.write_timeout = 0.4; });
  const std::string piece(100000, 'x');
  {
    RawClient client(patient.port());
    client.send(kGetHold);
    const auto held = patient.wait_held();
    ASSERT_TRUE(held);
    std::atomic<bool> gone = false;
    held->on_disconnect([&] { gone = true; });
    held->start_stream(200, {});
    for (int i = 0; i < 1000 && !held->disconnected(); ++i) held->write(piece);
    EXPECT_TRUE(held->disconnected()) << "100 MB in a stream that may hold 4";
    EXPECT_TRUE(eventually([&] { return gone.load(); }, 0.3)) << "at once, not with the timeout";
  }
  {
    RawClient client(server.port());
    client.send(kGetHold);
    const auto held = server.wait_held(0);
    ASSERT_TRUE(held);
    std::atomic<bool> gone = false;
    held->on_disconnect([&] { gone = true; });
    held->start_stream(200, {});
    fill(*held, piece);
    const Stopwatch watch;
    EXPECT_TRUE(eventually([&] { return gone.load(); }));
    EXPECT_GT(watch.seconds(), 0.2);
    EXPECT_LT(watch.seconds(), 2);
  }
  {
    // One that reads slowly but does read is kept.
    RawClient client(server.port());
    client.send(kGetHold);
    const auto held = server.wait_held(1);
    ASSERT_TRUE(held);
    held->start_stream(200, {});
    fill(*held, piece);
    for (int i = 0; i < 40 && held->unsent_bytes() > 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
      for (int part = 0; part < 20; ++part) client.read_some();
    }
    EXPECT_FALSE(held->disconnected());
    held->finish();
    EXPECT_TRUE(client.read_until("\r\n0\r\n\r\n").ends_with("\r\n0\r\n\r\n"));
  }
}

TEST(HttpServerStreams, TwoHundredAtOnceOnTwoThreads) {
  TestServer server([](HttpServerOptions& options) { options.threads = 2; });
  constexpr int kStreams = 200, kFrames = 30;
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<RawClient>(server.port(), 20));
    clients.back()->send("GET /hold HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  }
  std::vector<std::shared_ptr<HttpExchange>> held;
  for (int i = 0; i < kStreams; ++i) held.push_back(server.wait_held(static_cast<std::size_t>(i)));
  ASSERT_TRUE(held.back());
  // One producer for all, as the engine is.
  for (const auto& exchange : held) exchange->start_stream(200, {});
  for (int frame = 0; frame < kFrames; ++frame) {
    for (const auto& exchange : held) exchange->write("data: " + std::to_string(frame) + "\n\n");
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  for (const auto& exchange : held) exchange->finish();
  for (const auto& client : clients) {
    const std::string answer = client->read_to_end();
    EXPECT_TRUE(client->at_end());
    EXPECT_TRUE(answer.ends_with("0\r\n\r\n"));
    for (int frame = 0; frame < kFrames; ++frame) {
      ASSERT_NE(answer.find("data: " + std::to_string(frame) + "\n\n"), std::string::npos);
    }
  }
  EXPECT_TRUE(server.wait_done(kStreams));
}

TEST(HttpServerStreams, StopDrainsWhatIsInProgress) {
  TestServer server;
  RawClient streaming(server.port()), idle(server.port());
  streaming.send("GET /stream?200 HTTP/1.1\r\nHost: x\r\n\r\n");
  streaming.read_until("data: 0");
  const Stopwatch watch;
  std::thread stopping([&] { server.server().stop(10); });
  EXPECT_EQ(idle.read_to_end(), "");
  EXPECT_TRUE(idle.at_end());
  EXPECT_LT(watch.seconds(), 0.15) << "idle connections close at once";
  EXPECT_THROW(RawClient(server.port()), std::runtime_error) << "no new ones";
  const std::string rest = streaming.read_to_end();
  EXPECT_TRUE(rest.ends_with("0\r\n\r\n")) << "the stream ends properly, then the connection";
  EXPECT_NE(rest.find("data: 199\n"), std::string::npos);
  streaming.close();
  stopping.join();
  EXPECT_LT(watch.seconds(), 5);
}

TEST(HttpServerStreams, StopCutsWhatOutlivesTheDrain) {
  TestServer server;
  RawClient client(server.port());
  client.send(kGetHold);
  const auto held = server.wait_held();
  ASSERT_TRUE(held);
  std::atomic<bool> gone = false;
  held->on_disconnect([&] { gone = true; });
  const Stopwatch watch;
  server.server().stop(0.2);
  EXPECT_GT(watch.seconds(), 0.19);
  EXPECT_LT(watch.seconds(), 2);
  EXPECT_TRUE(gone);
  held->respond({200, {}, "late"});
  EXPECT_EQ(client.read_to_end(), "");
}

TEST(HttpServerStreams, AnExchangeMayOutliveItsServer) {
  std::shared_ptr<HttpExchange> held;
  {
    TestServer server;
    RawClient client(server.port());
    client.send(kGetHold);
    held = server.wait_held();
    ASSERT_TRUE(held);
  }
  EXPECT_TRUE(held->disconnected());
  EXPECT_EQ(held->request().path, "/hold");
  held->start_stream(200, {});
  held->write("x");
  held->finish();
}

TEST(HttpServerStreams, UnixSocket) {
  const ScratchFolder folder;
  const std::string path = folder.path() / "bise.sock";
  const auto use_path = [&](HttpServerOptions& options) { options.unix_socket = path; };
  {
    TestServer server(use_path);
    struct stat file;
    ASSERT_EQ(::stat(path.c_str(), &file), 0);
    EXPECT_EQ(file.st_mode & 0777, 0666u);
    RawClient client(path);
    client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_NE(client.read_until("GET /a").find("200 OK"), std::string::npos);
    EXPECT_THROW(TestServer second(use_path), Error) << "a living server keeps its socket";
  }
  EXPECT_FALSE(std::filesystem::exists(path)) << "the file goes with the server";
  {
    // A server that was killed leaves its file behind.
    TestServer killed(use_path);
    std::filesystem::rename(path, path + ".kept");
  }
  std::filesystem::rename(path + ".kept", path);
  {
    TestServer server(use_path);
    RawClient client(path);
    client.send(kGetHold);
    const auto held = server.wait_held();
    ASSERT_TRUE(held);
    EXPECT_EQ(held->request().remote, "unix");
  }
  std::filesystem::create_directory(path);
  EXPECT_THROW(TestServer server(use_path), Error) << "not a socket";
  EXPECT_TRUE(std::filesystem::exists(path));
  EXPECT_THROW(TestServer([](HttpServerOptions& options) { options.unix_socket = std::string(200, 'x'); }),
               Error);
}

TEST(HttpServerStreams, WhatCannotListenSaysWhere) {
  TestServer server;
  const auto error_of = [](const std::string& host, std::uint16_t port) -> std::string {
    try {
      TestServer second([&](HttpServerOptions& options) {
        options.host = host;
        options.port = port;
      });
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  const std::string place = "127.0.0.1:" + std::to_string(server.port());
  EXPECT_NE(error_of("127.0.0.1", server.port()).find(place), std::string::npos);
  EXPECT_NE(error_of("no such host", 0).find("no such host"), std::string::npos);
}

TEST(HttpServerStreams, RunningOutOfFilesPausesAcceptingAndRecovers) {
  TestServer server;
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  {
    RawClient probe(server.port());
    std::vector<std::unique_ptr<RawClient>> clients;
    // Room for these clients' ends, not for the server's.
    rlimit few = before;
    few.rlim_cur = static_cast<rlim_t>(probe.descriptor()) + 21;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
    const clock_t cpu = std::clock();
    try {
      for (int i = 0; i < 100; ++i) clients.push_back(std::make_unique<RawClient>(server.port(), 0.2));
    } catch (const std::runtime_error&) {
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    EXPECT_LT(static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC, 0.15) << "no spinning meanwhile";
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  }
  RawClient client(server.port());
  client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(client.read_until("GET /a").find("200 OK"), std::string::npos);
}

TEST(HttpServerStreams, MoreConnectionsThanAllowedWait) {
  TestServer server([](HttpServerOptions& options) { options.max_connections = 2; });
  auto first = std::make_unique<RawClient>(server.port());
  RawClient second(server.port());
  EXPECT_TRUE(eventually([&] { return server.server().connections() == 2; }));
  RawClient third(server.port());
  third.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(server.server().connections(), 2u);
  first.reset();
  EXPECT_NE(third.read_until("GET /a").find("200 OK"), std::string::npos);
}

}  // namespace
}  // namespace bise
