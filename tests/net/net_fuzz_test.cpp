// Parsers of net/ on mutated input: success or Error, nothing else; a server survives any bytes.
#include <gtest/gtest.h>

#include "base/clock.h"
#include "base/error.h"
#include "net/http_client.h"
#include "net/request_parser.h"
#include "net/response_parser.h"
#include "net/sse.h"
#include "net/url.h"
#include "tests/formats/mutate.h"
#include "tests/net/raw_client.h"

namespace bise {
namespace {

// Runs `use` on mutations of the seeds for two seconds at most; it says whether it accepted them. A target
// that only ever accepts or only ever refuses tests nothing.
void fuzz(const std::vector<std::string>& seeds, int most,
          const std::function<bool(const std::string&)>& use) {
  std::mt19937 random(20261121);
  int accepted = 0, refused = 0;
  for (const std::string& seed : seeds) EXPECT_TRUE(use(seed)) << seed.substr(0, 60);
  const Stopwatch watch;
  for (int i = 0; i < most && watch.seconds() < 2; ++i) {
    ++(use(mutated(seeds[random() % seeds.size()], random)) ? accepted : refused);
  }
  EXPECT_GT(accepted, 5);
  EXPECT_GT(refused, 50);
}

const std::vector<std::string> kRequests = {
    "GET /v1/models?a=b%20c HTTP/1.1\r\nHost: x\r\nX-Request-Id: 7\r\n\r\n",
    "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nContent-Type: application/json\r\n\r\n"
    "{\"prompt\":1}",
    "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
    "chunked\r\n\r\n3\r\nabc\r\n5;x=\"y\"\r\n12345\r\n0\r\nA: b\r\n\r\n",
    "PUT http://h:80/a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
    "HEAD / HTTP/1.0\r\nConnection: keep-alive, x\r\n\r\n",
};

TEST(NetFuzz, RequestParser) {
  std::mt19937 random(1);
  fuzz(kRequests, 100000, [&](const std::string& bytes) {
    RequestParser parser({2000, 20, 1000});
    std::string input;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t part = 1 + random() % 60;
      input += bytes.substr(at, part);
      at += part;
      const std::size_t used = parser.put(input);
      EXPECT_LE(used, input.size());
      input.erase(0, used);
      if (parser.done() || parser.refused()) break;
    }
    EXPECT_LE(parser.request().body.size(), 1000u);
    return parser.done();
  });
}

TEST(NetFuzz, ResponseParser) {
  const std::vector<std::string> seeds = {
      "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\nhello",
      "HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x\r\nd\r\n0\r\n\r\n",
      "HTTP/1.1 302 Found\r\nLocation: https://h/x\r\nContent-Length: 0\r\n\r\n",
      "HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx"};
  std::mt19937 random(1);
  fuzz(seeds, 100000, [&](const std::string& bytes) {
    ResponseParser parser(2000, false);
    std::string input, body;
    for (std::size_t at = 0; at < bytes.size() && !parser.done() && parser.failed().empty();) {
      const std::size_t part = 1 + random() % 60;
      input += bytes.substr(at, part);
      at += part;
      for (std::size_t used = 1; used > 0;) {
        used = parser.put(input, [&](std::string_view piece) { body += piece; });
        EXPECT_LE(used, input.size());
        input.erase(0, used);
      }
    }
    EXPECT_LE(body.size(), bytes.size());
    return parser.done();
  });
}

TEST(NetFuzz, Url) {
  const std::vector<std::string> seeds = {"https://user:p%40ss@host.example:8443/a/b%20c?q=1&r=2#part",
                                          "http://[2001:db8::1]:80/x", "HTTP://h?a/../b"};
  const Url base = parse_url("https://h:444/a/b");
  std::mt19937 random(1);
  fuzz(seeds, 200000, [&](const std::string& text) {
    try {
      resolve_url(base, text);
    } catch (const Error&) {
    }
    try {
      const Url url = parse_url(text);
      const Url again = parse_url(url.text());
      EXPECT_EQ(again.text(), url.text());
      EXPECT_TRUE(again.same_origin(url));
      EXPECT_EQ(url.text().find_first_of(" \r\n"), std::string::npos);
      return true;
    } catch (const Error&) {
      return false;
    }
  });
}

TEST(NetFuzz, Sse) {
  const std::vector<std::string> seeds = {
      "data: {\"choices\":[{\"text\":\"a\"}]}\n\n: keep-alive\n\nevent: error\ndata: 1\ndata: 2\n\ndata: "
      "[DONE]\n\n"};
  std::mt19937 random(1);
  fuzz(seeds, 50000, [&](const std::string& bytes) {
    std::vector<std::string> whole, cut;
    SseParser one(150), many(150);
    try {
      one.feed(bytes, [&](const SseEvent& event) { whole.push_back(event.data); });
      for (std::size_t at = 0; at < bytes.size();) {
        const std::size_t part = 1 + random() % 9;
        many.feed(std::string_view(bytes).substr(at, part),
                  [&](const SseEvent& event) { cut.push_back(event.data); });
        at += part;
      }
    } catch (const Error&) {
      return false;
    }
    EXPECT_EQ(whole, cut);
    return whole.size() == 3;
  });
}

TEST(NetFuzz, ContentRange) {
  fuzz({"bytes 0-99/1234", "bytes 5-5/*"}, 100000, [](const std::string& field) {
    const auto range = parse_content_range(field);
    EXPECT_TRUE(!range || range->first <= range->last);
    return range.has_value();
  });
}

TEST(NetFuzz, AServerSurvivesAnyBytes) {
  TestServer server([](HttpServerOptions& options) {
    options.read_timeout = 1;
    options.max_body_bytes = 1000;
    options.threads = 2;
  });
  std::mt19937 random(20261121);
  const Stopwatch watch;
  int connections = 0;
  while (watch.seconds() < 2) {
    RawClient client(server.port(), 0.02);
    std::string bytes;
    for (int i = 0; i < 3; ++i)
      bytes += random() % 3 ? mutated(kRequests[random() % kRequests.size()], random) : kRequests[0];
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t part = 1 + random() % 200;
      if (!client.send(std::string_view(bytes).substr(at, part))) break;
      at += part;
    }
    switch (random() % 4) {
      case 0: client.reset(); break;
      case 1:
        client.end_sending();
        client.read_to_end();
        break;
      case 2: client.read_some(); break;
      default: break;
    }
    ++connections;
  }
  EXPECT_GT(connections, 50);
  RawClient client(server.port());
  client.send("GET /alive HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_NE(client.read_until("GET /alive").find("200 OK"), std::string::npos);
  client.close();
  EXPECT_TRUE(eventually([&] { return server.server().connections() == 0; }, 5))
      << "no connection is left behind";
}

}  // namespace
}  // namespace bise
