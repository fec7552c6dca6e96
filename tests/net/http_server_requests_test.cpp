// What the server makes of requests, good and bad, byte by byte over raw sockets.
#include <gtest/gtest.h>

#include "base/clock.h"
#include "tests/net/raw_client.h"

namespace bise {
namespace {
using namespace std::string_literals;

constexpr std::string_view kEnd = "\r\n\r\n";

std::string repeated(std::string_view text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

std::vector<std::string> field_by_field(int fields, std::size_t size) {
  std::vector<std::string> pieces = {"GET /a HTTP/1.1\r\nHost: x\r\n"};
  for (int i = 0; i < fields; ++i) pieces.push_back("A: " + std::string(size, 'a') + "\r\n");
  return pieces;
}

struct Case {
  const char* name;
  std::vector<std::string> pieces;  // sent one after another
  std::vector<int> statuses;        // of the answers
  bool closes = false;              // the server ends the connection by itself
  bool half_close = false;          // the client ends its sending side behind the last piece
};

const Case kCases[] = {
    {"get", {"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n"}, {200}},
    {"in single bytes", {"G", "E", "T /a HTTP/1.1\r", "\nHo", "st: x\r\n", "\r", "\n"}, {200}},
    {"post", {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n", "ab", "c"}, {200}},
    {"head", {"HEAD /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"}, {200}, true},
    {"chunked",
     {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
      "2;x=y\r\nde\r\n0\r\n\r\n"},
     {200}},
    {"chunked with trailers",
     {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"},
     {200}},
    {"keep-alive", {"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n", "GET /2 HTTP/1.1\r\nHost: x\r\n\r\n"}, {200, 200}},
    {"empty lines between",
     {"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n"},
     {200, 200}},
    {"close", {"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"}, {200}, true},
    {"http 1.0", {"GET /a HTTP/1.0\r\n\r\n"}, {200}, true},
    {"http 1.0 keep-alive", {"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"}, {200}},
    {"absolute target", {"GET http://other/a HTTP/1.1\r\nHost: x\r\n\r\n"}, {200}},
    {"half-close after the request", {"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"}, {200}, true, true},

    {"no host", {"GET /a HTTP/1.1\r\n\r\n"}, {400}, true},
    {"two hosts", {"GET /a HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n"}, {400}, true},
    {"garbage", {"\x16\x03\x01\x02\x00\x01"}, {400}, true},
    {"bare newlines", {"GET /a HTTP/1.1\nHost: x\n\n"}, {400}, true},
    {"no version", {"GET /a\r\nHost: x\r\n\r\n"}, {400}, true},
    {"http 2", {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}, {400}, true},
    {"field without colon", {"GET /a HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n"}, {400}, true},
    {"space before colon", {"GET /a HTTP/1.1\r\nHost : x\r\n\r\n"}, {400}, true},
    {"NUL in a field", {"GET /a HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n"s}, {400}, true},
    {"NUL in the path", {"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n"}, {400}, true},
    {"negative length", {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"}, {400}, true},
    {"length in words", {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: ten\r\n\r\n"}, {400}, true},
    {"length beyond 64 bits",
     {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n"},
     {400},
     true},
    {"two lengths",
     {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"},
     {400},
     true},
    {"length and chunks",
     {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
     {400},
     true},
    {"chunks and length",
     {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"},
     {400},
     true},
    {"unknown encoding", {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n"}, {501}, true},
    {"chunked not last",
     {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"},
     {501},
     true},
    {"chunks in http 1.0", {"POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"}, {501}, true},
    {"bad chunk size",
     {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"},
     {400},
     true},
    {"chunk longer than said",
     {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n"},
     {400},
     true},
    {"chunk size beyond 64 bits",
     {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"},
     {400},
     true},
    {"chunk extension without end",
     {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;" + std::string(10000, 'x')},
     {400},
     true},
    {"chunks over the body limit",
     {"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
      repeated("100\r\n" + std::string(256, 'x') + "\r\n", 5)},
     {413},
     true},
    {"length over the body limit",
     {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", std::string(1001, 'x')},
     {413},
     true},
    {"a huge length",
     {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 18446744073709551615\r\n\r\n"},
     {413},
     true},
    {"long target", {"GET /" + std::string(9000, 'a') + " HTTP/1.1\r\nHost: x\r\n\r\n"}, {431}, true},
    {"long target without end", {"GET /" + std::string(9000, 'a')}, {431}, true},
    {"long field", {"GET /a HTTP/1.1\r\nHost: x\r\nA: ", std::string(9000, 'a'), "\r\n\r\n"}, {431}, true},
    {"long header in small pieces", field_by_field(20, 300), {431}, true},
    {"many fields", {"GET /a HTTP/1.1\r\nHost: x\r\n" + repeated("A: b\r\n", 40) + "\r\n"}, {431}, true},
    {"unknown expectation", {"POST /a HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\n\r\n"}, {417}, true},
    {"ends within the header", {"GET /a HTTP/1.1\r\nHo"}, {400}, true, true},
    {"ends within the body",
     {"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"},
     {400},
     true,
     true},
    {"good, then garbage", {"GET /a HTTP/1.1\r\nHost: x\r\n\r\n\x01\x02\x03"}, {200, 400}, true},
    {"nothing", {}, {}, true, true},
    {"handler throws", {"GET /throw HTTP/1.1\r\nHost: x\r\n\r\n"}, {500}},
    {"handler forgets", {"GET /drop HTTP/1.1\r\nHost: x\r\n\r\n"}, {500}},
};

TEST(HttpServerRequests, EachGetsItsAnswer) {
  TestServer server([](HttpServerOptions& options) {
    options.max_body_bytes = 1000;
    options.max_header_bytes = 4000;
    options.max_headers = 32;
  });
  for (const Case& test : kCases) {
    SCOPED_TRACE(test.name);
    RawClient client(server.port());
    for (const std::string& piece : test.pieces) {
      client.send(piece);
      if (test.pieces.size() > 1) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (test.half_close) client.end_sending();
    std::string answers;
    while (statuses(answers).size() < test.statuses.size()) {
      const std::string part = client.read_some();
      if (part.empty()) break;
      answers += part;
    }
    if (test.closes) {
      answers += client.read_to_end();
      EXPECT_TRUE(client.at_end()) << "the server should have closed";
    }
    EXPECT_EQ(statuses(answers), test.statuses) << answers;
    if (!test.closes) {
      // The connection is still good.
      client.send("GET /again HTTP/1.1\r\nHost: x\r\n\r\n");
      EXPECT_NE(client.read_until("GET /again").find("GET /again"), std::string::npos);
    }
  }
}

TEST(HttpServerRequests, BodiesArriveWhole) {
  TestServer server;
  const std::size_t sizes[] = {0, 1, 2047, 2048, 70000, 3000001};
  for (const std::size_t size : sizes) {
    for (const bool chunked : {false, true}) {
      RawClient client(server.port());
      std::string body(size, 'x');
      std::string sent = "POST /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
      if (chunked) {
        sent += "Transfer-Encoding: chunked\r\n\r\n";
        for (std::size_t at = 0; at < size; at += 1000) {
          const std::size_t part = std::min<std::size_t>(1000, size - at);
          char head[32];
          std::snprintf(head, sizeof head, "%zx\r\n", part);
          sent += head + body.substr(at, part) + "\r\n";
        }
        sent += "0\r\n\r\n";
      } else {
        sent += "Content-Length: " + std::to_string(size) + "\r\n\r\n" + body;
      }
      ASSERT_TRUE(client.send(sent));
      const std::string answer = client.read_to_end();
      EXPECT_TRUE(answer.ends_with("POST /a  " + std::to_string(size))) << answer;
    }
  }
}

TEST(HttpServerRequests, PipelinedRequestsAreAnsweredInOrder) {
  TestServer server;
  server.route("/slow", [](std::shared_ptr<HttpExchange> exchange) {
    std::thread([exchange] {
      std::this_thread::sleep_for(std::chrono::milliseconds(30));
      exchange->respond({200, {}, "slow " + exchange->request().query});
    }).detach();
  });
  RawClient client(server.port());
  std::string sent;
  for (int i = 0; i < 6; ++i) {
    sent += "GET " + std::string(i % 2 ? "/fast" : "/slow") + "?" + std::to_string(i) +
            " HTTP/1.1\r\nHost: x\r\n\r\n";
  }
  client.send(sent);
  const std::string answers = client.read_until("GET /fast 5");
  std::size_t last = 0;
  for (int i = 0; i < 6; ++i) {
    const std::size_t at = answers.find((i % 2 ? "GET /fast " : "slow ") + std::to_string(i));
    ASSERT_NE(at, std::string::npos) << i << " in " << answers;
    EXPECT_GT(at, last);
    last = at;
  }
}

TEST(HttpServerRequests, MoreReadAheadThanIsKeptStillArrives) {
  TestServer server;
  RawClient client(server.port());
  const std::string body(1000, 'x');
  const std::string one = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + body;
  const int count = 400;
  client.send("GET /hold HTTP/1.1\r\nHost: x\r\n\r\n");
  const auto held = server.wait_held();
  ASSERT_TRUE(held);
  std::thread sender([&] { client.send(repeated(one, count)); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  held->respond({200, {}, ""});
  std::string answers;
  while (statuses(answers).size() < count + 1u) {
    const std::string part = client.read_some();
    if (part.empty()) break;
    answers += part;
  }
  sender.join();
  EXPECT_EQ(statuses(answers), std::vector<int>(count + 1, 200));
}

TEST(HttpServerRequests, ExpectContinueComesBeforeTheBody) {
  TestServer server([](HttpServerOptions& options) { options.max_body_bytes = 1000; });
  {
    RawClient client(server.port());
    client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
    EXPECT_EQ(client.read_until(kEnd), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc");
    EXPECT_NE(client.read_until("POST /a  3").find("200 OK"), std::string::npos);
  }
  {
    RawClient client(server.port());
    client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\nExpect: 100-continue\r\n\r\n");
    EXPECT_EQ(statuses(client.read_to_end()), std::vector<int>{413});
  }
  {
    // The body is already there: no interim answer is needed.
    RawClient client(server.port());
    client.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc");
    EXPECT_EQ(statuses(client.read_until("POST /a  3")), std::vector<int>{200});
  }
}

TEST(HttpServerRequests, SlowSendersGet408) {
  TestServer server([](HttpServerOptions& options) { options.read_timeout = 0.3; });
  const std::string starts[] = {"GET /a HT", "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc"};
  for (const std::string& start : starts) {
    RawClient client(server.port());
    const Stopwatch watch;
    client.send(start);
    // A byte now and then does not buy more time.
    std::atomic<bool> stop = false;
    std::thread dripping([&] {
      while (!stop) {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        client.send("x");
      }
    });
    EXPECT_EQ(statuses(client.read_until(kEnd)), std::vector<int>{408});
    EXPECT_GT(watch.seconds(), 0.25);
    EXPECT_LT(watch.seconds(), 1.0);
    stop = true;
    dripping.join();
  }
}

TEST(HttpServerRequests, IdleConnectionsAreClosedSilently) {
  TestServer server([](HttpServerOptions& options) { options.idle_timeout = 0.2; });
  RawClient fresh(server.port()), used(server.port());
  used.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(used.read_until("GET /a  0").ends_with("GET /a  0"));
  const Stopwatch watch;
  EXPECT_EQ(fresh.read_to_end() + used.read_to_end(), "");
  EXPECT_TRUE(fresh.at_end() && used.at_end());
  EXPECT_LT(watch.seconds(), 3);
}

TEST(HttpServerRequests, TheErrorPageIsTheServersOwn) {
  TestServer server([](HttpServerOptions& options) {
    options.error_page = [](int status, std::string_view reason) {
      return HttpResponse{
          status, {{"content-type", "application/json"}}, "{\"why\":\"" + std::string(reason) + "\"}"};
    };
  });
  RawClient client(server.port());
  client.send("POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n");
  const std::string answer = client.read_to_end();
  EXPECT_NE(answer.find("content-type: application/json"), std::string::npos) << answer;
  EXPECT_TRUE(answer.ends_with("{\"why\":\"a Transfer-Encoding other than chunked\"}")) << answer;
  EXPECT_TRUE(server.wait_done(1));
  EXPECT_EQ(server.done().at(0).line, "POST /a 501");
}

TEST(HttpServerRequests, HeaderValuesCannotBreakTheHeader) {
  TestServer server;
  server.route("/a", [](std::shared_ptr<HttpExchange> exchange) {
    exchange->respond({200, {{"x-request-id", "a\r\nset-cookie: b"}}, "ok"});
  });
  RawClient client(server.port());
  client.send("GET /a HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(client.read_until("ok").find("x-request-id: a  set-cookie: b\r\n"), std::string::npos);
}

}  // namespace
}  // namespace bise
