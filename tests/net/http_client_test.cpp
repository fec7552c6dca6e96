// The client against the server and against servers that misbehave.
#include "net/http_client.h"

#include <gtest/gtest.h>

#include <future>

#include "base/clock.h"
#include "base/error.h"
#include "tests/net/raw_client.h"
#include "tests/net/scripted_server.h"
#include "tests/test_support.h"

namespace bise {
namespace {

using Reply = ScriptedServer::Reply;

std::string answer(const std::string& body, const std::string& fields = "") {
  return "HTTP/1.1 200 OK\r\n" + fields + "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" +
         body;
}

TEST(HttpClient, SendsAndReceives) {
  TestServer server;
  HttpClient client;
  const HttpResult get = client.fetch({.url = server.url("/a?b=c")});
  EXPECT_EQ(get.failure, HttpFailure::kNone) << get.error;
  EXPECT_EQ(get.status, 200);
  EXPECT_EQ(get.body, "GET /a b=c 0");
  EXPECT_EQ(get.headers.find("Content-Type"), "text/plain");
  EXPECT_FALSE(get.reused);
  EXPECT_GE(get.seconds, get.first_byte_seconds);
  const HttpResult post =
      client.fetch({.method = "POST", .url = server.url("/a%20b"), .body = std::string(1000000, 'x')});
  EXPECT_EQ(post.body, "POST /a b  1000000");
  EXPECT_TRUE(post.reused) << "the connection is kept";
  const HttpResult head = client.fetch({.method = "HEAD", .url = server.url("/a")});
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.body, "");
  EXPECT_EQ(head.headers.find("content-length"), "10");
  EXPECT_TRUE(head.reused);
  EXPECT_EQ(client.fetch({.url = server.url("/throw")}).status, 500);
  EXPECT_EQ(server.server().connections(), 1u);
}

TEST(HttpClient, StreamsTheBodyToACallback) {
  TestServer server;
  HttpClient client;
  std::string body;
  int header_status = 0;
  HttpCall call{.url = server.url("/stream?50")};
  call.on_header = [&](int status, const HttpHeaders& headers) {
    header_status = status;
    EXPECT_TRUE(headers.find("content-type")->starts_with("text/event-stream"));
    return true;
  };
  call.on_body = [&](std::string_view bytes) {
    body += bytes;
    return true;
  };
  const HttpResult result = client.fetch(std::move(call));
  EXPECT_TRUE(result.ok()) << result.error;
  EXPECT_EQ(header_status, 200);
  EXPECT_EQ(result.body, "");
  EXPECT_TRUE(body.starts_with("data: 0\n\ndata: 1\n\n") && body.ends_with("data: 49\n\n")) << body;
}

TEST(HttpClient, AnErrorsBodyIsNotStreamed) {
  TestServer server;
  HttpClient client;
  std::string streamed;
  HttpCall call{.url = server.url("/throw")};
  call.on_body = [&](std::string_view bytes) {
    streamed += bytes;
    return true;
  };
  const HttpResult result = client.fetch(std::move(call));
  EXPECT_EQ(result.status, 500);
  EXPECT_EQ(result.body, "Internal Server Error");
  EXPECT_EQ(streamed, "");
}

TEST(HttpClient, ManyAtOnceFromOneThread) {
  TestServer server([](HttpServerOptions& options) { options.threads = 2; });
  HttpClient client;
  constexpr int kCalls = 300;
  std::atomic<int> good = 0, bytes = 0;
  std::promise<void> all;
  std::atomic<int> left = kCalls;
  for (int i = 0; i < kCalls; ++i) {
    HttpCall call{.url = server.url(i % 2 ? "/stream?20" : "/echo")};
    if (i % 2) {
      call.on_body = [&](std::string_view part) {
        bytes += static_cast<int>(part.size());
        return true;
      };
    }
    client.send(std::move(call), [&](HttpResult result) {
      good += result.ok();
      if (--left == 0) all.set_value();
    });
  }
  ASSERT_EQ(all.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_EQ(good, kCalls);
  EXPECT_EQ(bytes, kCalls / 2 * (10 * 9 + 10 * 10));
}

TEST(HttpClient, CallbacksMayCancel) {
  TestServer server;
  HttpClient client;
  HttpCall by_header{.url = server.url("/stream?1000")};
  by_header.on_header = [](int, const HttpHeaders&) { return false; };
  EXPECT_EQ(client.fetch(std::move(by_header)).failure, HttpFailure::kCancelled);
  HttpCall by_body{.url = server.url("/stream?1000")};
  int pieces = 0;
  by_body.on_body = [&](std::string_view) { return ++pieces < 3; };
  EXPECT_EQ(client.fetch(std::move(by_body)).failure, HttpFailure::kCancelled);
  EXPECT_EQ(pieces, 3);
  HttpCall by_throwing{.url = server.url("/stream?1000")};
  by_throwing.on_body = [](std::string_view) -> bool { throw Error("disk full"); };
  const HttpResult thrown = client.fetch(std::move(by_throwing));
  EXPECT_EQ(thrown.failure, HttpFailure::kCancelled);
  EXPECT_NE(thrown.error.find("disk full"), std::string::npos);
  EXPECT_TRUE(eventually([&] { return server.server().connections() == 0; })) << "the server sees them leave";
}

TEST(HttpClient, CancelEndsACallAtOnce) {
  TestServer server;
  HttpClient client;
  std::promise<HttpResult> done;
  const std::uint64_t id = client.send({.url = server.url("/hold")},
                                       [&](HttpResult result) { done.set_value(std::move(result)); });
  const auto held = server.wait_held();
  ASSERT_TRUE(held);
  std::atomic<bool> gone = false;
  held->on_disconnect([&] { gone = true; });
  client.cancel(id);
  client.cancel(id);
  client.cancel(12345);
  EXPECT_EQ(done.get_future().get().failure, HttpFailure::kCancelled);
  EXPECT_TRUE(eventually([&] { return gone.load(); }, 0.5));
}

TEST(HttpClient, DestructionCancelsWhatIsInFlight) {
  TestServer server;
  std::atomic<int> cancelled = 0;
  {
    HttpClient client;
    for (int i = 0; i < 10; ++i) {
      client.send({.url = server.url("/hold")}, [&](HttpResult result) {
        cancelled += result.failure == HttpFailure::kCancelled;
        // What a callback sends now ends as well.
        client.send({.url = server.url("/hold")},
                    [&](HttpResult late) { cancelled += late.failure == HttpFailure::kCancelled; });
      });
    }
    server.wait_held(9);
  }
  EXPECT_EQ(cancelled, 20);
}

TEST(HttpClient, RedirectsAreFollowedWithinLimits) {
  TestServer other;
  TestServer server;
  std::vector<std::string> seen;
  const auto note = [&](std::shared_ptr<HttpExchange> exchange) {
    const HttpRequest& request = exchange->request();
    const auto key = request.headers.find("authorization");
    exchange->respond({200, {}, request.method + " " + request.path + " " + std::string(key.value_or("-"))});
  };
  server.route("/end", note);
  other.route("/end", note);
  const auto to = [&](const std::string& path, int status, const std::string& where) {
    server.route(path, [=](std::shared_ptr<HttpExchange> exchange) {
      exchange->respond({status, {{"location", where}}, std::string(1000, 'x')});
    });
  };
  to("/301", 301, "/end");
  to("/302", 302, "end");
  to("/303", 303, server.url("/end"));
  to("/307", 307, "/end");
  to("/308", 308, "/301");
  to("/other", 302, other.url("/end"));
  to("/loop", 302, "/loop");
  to("/file", 302, "file:///etc/passwd");
  HttpClient client;
  struct Case {
    const char *method, *path, *body;
  };
  const Case cases[] = {{"GET", "/301", "GET /end key"},   {"POST", "/301", "GET /end key"},
                        {"POST", "/302", "GET /end key"},  {"POST", "/303", "GET /end key"},
                        {"POST", "/307", "POST /end key"}, {"PUT", "/302", "PUT /end key"},
                        {"GET", "/308", "GET /end key"},   {"GET", "/other", "GET /end -"}};
  for (const Case& test : cases) {
    HttpCall call{.method = test.method, .url = server.url(test.path), .headers = {{"Authorization", "key"}}};
    if (call.method != "GET") call.body = "abc";
    const HttpResult result = client.fetch(std::move(call));
    EXPECT_EQ(result.body, test.body) << test.path << " " << result.error;
    EXPECT_TRUE(result.url.ends_with("/end"));
  }
  EXPECT_EQ(client.fetch({.url = server.url("/loop")}).failure, HttpFailure::kRedirects);
  EXPECT_EQ(client.fetch({.url = server.url("/file")}).failure, HttpFailure::kRedirects);
  const HttpResult kept = client.fetch({.url = server.url("/other"), .max_redirects = 0});
  EXPECT_EQ(kept.status, 302);
  EXPECT_EQ(kept.headers.find("location"), other.url("/end"));
  EXPECT_EQ(kept.body.size(), 1000u);
}

TEST(HttpClient, RangesArriveInPieces) {
  TestServer server;
  const std::string content = "0123456789abcdef";
  server.route("/file", [&](std::shared_ptr<HttpExchange> exchange) {
    const auto range = exchange->request().headers.find("range");
    const std::size_t first = range ? std::stoul(std::string(range->substr(6))) : 0;
    exchange->respond(
        {206, {{"content-range", "bytes " + std::to_string(first) + "-15/16"}}, content.substr(first)});
  });
  HttpClient client;
  const HttpResult result = client.fetch({.url = server.url("/file"), .headers = {{"Range", "bytes=10-"}}});
  EXPECT_EQ(result.status, 206);
  EXPECT_EQ(result.body, "abcdef");
  const auto range = parse_content_range(*result.headers.find("content-range"));
  ASSERT_TRUE(range);
  EXPECT_EQ(range->first, 10u);
  EXPECT_EQ(range->last, 15u);
  EXPECT_EQ(range->total, 16u);
  EXPECT_FALSE(parse_content_range("bytes 0-9/*")->total);
  for (const char* bad : {"", "bytes", "bytes */16", "bytes 5-3/16", "bytes 0-16/16", "bytes 0-1/2x",
                          "items 0-1/2", "bytes 0-99999999999999999999/*", "bytes 0-1", "bytes -1-2/3"}) {
    EXPECT_FALSE(parse_content_range(bad)) << bad;
  }
}

struct BadServer {
  const char* name;
  Reply reply;
  HttpFailure failure;
};

TEST(HttpClient, WhatServersDoWrongIsToldApart) {
  const BadServer cases[] = {
      {"closes at once", {""}, HttpFailure::kCut},
      {"resets at once", {"", Reply::kReset}, HttpFailure::kCut},
      {"ends within the header", {"HTTP/1.1 200 OK\r\nContent-"}, HttpFailure::kCut},
      {"body too short", {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"}, HttpFailure::kCut},
      {"resets within the body",
       {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", Reply::kReset},
       HttpFailure::kCut},
      {"chunks without end",
       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"},
       HttpFailure::kCut},
      {"ends within a chunk",
       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc"},
       HttpFailure::kCut},
      {"reset where the end is the length", {"HTTP/1.1 200 OK\r\n\r\nabc", Reply::kReset}, HttpFailure::kCut},
      {"no HTTP", {"220 mail.example ESMTP\r\n\r\n"}, HttpFailure::kProtocol},
      {"binary", {std::string("\x15\x03\x01\x00\x02\x02\x46\r\n\r\n", 11)}, HttpFailure::kProtocol},
      {"bad chunk", {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"}, HttpFailure::kProtocol},
      {"bad length", {"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc"}, HttpFailure::kProtocol},
      {"two lengths",
       {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"},
       HttpFailure::kProtocol},
      {"header without end", {"HTTP/1.1 200 OK\r\nA: " + std::string(100000, 'a')}, HttpFailure::kProtocol},
      {"body over the limit", {answer(std::string(5000, 'x'))}, HttpFailure::kProtocol},
      {"unasked switch", {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"}, HttpFailure::kProtocol},
      {"silence", {"", Reply::kClose, 3}, HttpFailure::kTimeout},
      {"stops within the body",
       {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", Reply::kKeep},
       HttpFailure::kTimeout},
  };
  HttpClientOptions options;
  options.idle_timeout = 0.3;
  options.max_body_bytes = 4000;
  HttpClient client(options);
  for (const BadServer& test : cases) {
    ScriptedServer server({test.reply});
    const HttpResult result = client.fetch({.url = server.url()});
    EXPECT_EQ(static_cast<int>(result.failure), static_cast<int>(test.failure))
        << test.name << ": " << result.error;
    EXPECT_NE(result.error.find(server.url()), std::string::npos) << "says with whom: " << result.error;
    EXPECT_EQ(server.connections(), 1) << test.name;
  }
}

TEST(HttpClient, OddButValidAnswers) {
  struct Case {
    const char* name;
    std::string bytes, body;
  };
  const Case cases[] = {
      {"until the end", "HTTP/1.1 200 OK\r\n\r\nabc", "abc"},
      {"http 1.0", "HTTP/1.0 200 OK\r\n\r\nabc", "abc"},
      {"no reason", "HTTP/1.1 200 \r\nContent-Length: 3\r\n\r\nabc", "abc"},
      {"interim answers",
       "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer("abc"), "abc"},
      {"no content", "HTTP/1.1 204 No Content\r\n\r\n", ""},
      {"chunks with trailers",
       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n", "abc"},
  };
  HttpClient client;
  for (const Case& test : cases) {
    ScriptedServer server({{test.bytes}});
    const HttpResult result = client.fetch({.url = server.url()});
    EXPECT_TRUE(result.ok()) << test.name << ": " << result.error;
    EXPECT_EQ(result.body, test.body) << test.name;
  }
}

TEST(HttpClient, AKeptConnectionThatWasClosedIsReplaced) {
  HttpClient client;
  {
    // Closed in good time: seen before it is used again.
    ScriptedServer server({{answer("1"), Reply::kClose}, {answer("2"), Reply::kClose}});
    EXPECT_EQ(client.fetch({.url = server.url()}).body, "1");
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_EQ(client.fetch({.method = "POST", .url = server.url()}).body, "2");
    EXPECT_EQ(server.connections(), 2);
  }
  {
    // Closed under the request: a GET is sent once more, a POST is not.
    ScriptedServer server(
        {{answer("1"), Reply::kKeep}, {"", Reply::kClose}, {answer("2"), Reply::kKeep}, {""}});
    EXPECT_EQ(client.fetch({.url = server.url()}).body, "1");
    EXPECT_EQ(client.fetch({.url = server.url()}).body, "2");
    EXPECT_EQ(client.fetch({.method = "POST", .url = server.url()}).failure, HttpFailure::kCut);
    EXPECT_EQ(server.requests().size(), 4u);
  }
}

TEST(HttpClient, TimeoutsOfTheWholeCall) {
  TestServer server;
  HttpClient client;
  const Stopwatch watch;
  EXPECT_EQ(client.fetch({.url = server.url("/stream?100000"), .total_timeout = 0.3}).failure,
            HttpFailure::kTimeout);
  EXPECT_GT(watch.seconds(), 0.29);
  EXPECT_LT(watch.seconds(), 1);
}

TEST(HttpClient, WhoIsNotThereIsAFailureToConnect) {
  std::uint16_t free_port;
  {
    TestServer gone;
    free_port = gone.port();
  }
  HttpClient client;
  const HttpResult refused = client.fetch({.url = "http://127.0.0.1:" + std::to_string(free_port)});
  EXPECT_EQ(refused.failure, HttpFailure::kConnect);
  EXPECT_EQ(client.fetch({.url = "http://no-such-host.invalid/"}).failure, HttpFailure::kConnect);
  HttpClientOptions options;
  options.unix_socket = "/no/such/socket";
  EXPECT_EQ(HttpClient(options).fetch({.url = "http://x/"}).failure, HttpFailure::kConnect);
}

TEST(HttpClient, MalformedCallsThrow) {
  HttpClient client;
  EXPECT_THROW(client.fetch({.url = "nonsense"}), Error);
  EXPECT_THROW(client.fetch({.method = "GET /", .url = "http://h/"}), Error);
  EXPECT_THROW(client.fetch({.url = "http://h/", .headers = {{"a", "b\r\nc: d"}}}), Error);
  EXPECT_THROW(client.fetch({.url = "http://h/", .headers = {{"a b", "c"}}}), Error);
  EXPECT_THROW(HttpClient({.proxy = "https://proxy"}), Error);
  EXPECT_THROW(HttpClient({.ca_certs = "/no/such/file"}), Error);
}

TEST(HttpClient, UnixSocketsAndProxies) {
  const ScratchFolder folder;
  const std::string path = folder.path() / "s";
  TestServer unix_server([&](HttpServerOptions& options) { options.unix_socket = path; });
  HttpClientOptions options;
  options.unix_socket = path;
  EXPECT_EQ(HttpClient(options).fetch({.url = "http://anything/a"}).body, "GET /a  0");

  ScriptedServer proxy({{answer("proxied")}, {answer("direct")}});
  HttpClientOptions proxied;
  proxied.proxy = "http://me:secret@127.0.0.1:" + std::to_string(proxy.port());
  proxied.no_proxy = {".local", "127.0.0.1"};
  HttpClient client(proxied);
  EXPECT_EQ(client.fetch({.url = "http://far.example:81/a?b"}).body, "proxied");
  EXPECT_EQ(client.fetch({.url = proxy.url("/c")}).body, "direct");
  const auto requests = proxy.requests();
  ASSERT_EQ(requests.size(), 2u);
  EXPECT_TRUE(requests[0].starts_with("GET http://far.example:81/a?b HTTP/1.1\r\nHost: far.example:81\r\n"))
      << requests[0];
  EXPECT_NE(requests[0].find("Proxy-Authorization: Basic bWU6c2VjcmV0\r\n"), std::string::npos)
      << requests[0];
  EXPECT_TRUE(requests[1].starts_with("GET /c HTTP/1.1\r\n")) << requests[1];
  EXPECT_EQ(requests[1].find("Authorization"), std::string::npos);
}

}  // namespace
}  // namespace bise
