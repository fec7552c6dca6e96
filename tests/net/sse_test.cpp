#include "net/sse.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"

namespace bise {
namespace {

std::vector<std::string> events(SseParser& parser, std::string_view bytes) {
  std::vector<std::string> found;
  parser.feed(bytes, [&](const SseEvent& event) {
    found.push_back(event.type + "|" + event.data + (event.id.empty() ? "" : "|" + event.id));
  });
  return found;
}

struct Case {
  const char* name;
  std::string bytes;
  std::vector<std::string> events;
};

const Case kCases[] = {
    {"one", "data: {\"a\":1}\n\n", {"|{\"a\":1}"}},
    {"crlf", "data: a\r\n\r\ndata: b\r\n\r\n", {"|a", "|b"}},
    {"cr", "data: a\r\rdata: b\r\r", {"|a", "|b"}},
    {"mixed ends", "data: a\r\n\ndata: b\r\r\n", {"|a", "|b"}},
    {"no space", "data:a\n\n", {"|a"}},
    {"one space only is dropped", "data:  a\n\n", {"| a"}},
    {"several lines", "data: a\ndata: b\n\n", {"|a\nb"}},
    {"empty data", "data\n\n", {"|"}},
    {"empty lines of data", "data:\ndata\n\n", {"|\n"}},
    {"comments", ": keep-alive\n\n: x\ndata: a\n:y\n\n", {"|a"}},
    {"type and id", "event: error\nid: 7\ndata: a\n\ndata: b\n\n", {"error|a|7", "|b|7"}},
    {"type without data is none", "event: x\n\ndata: a\n\n", {"|a"}},
    {"unknown fields", "retry: 10\nfoo: bar\ndata: a\n\n", {"|a"}},
    {"byte order mark",
     "\xEF\xBB\xBF"
     "data: a\n\n",
     {"|a"}},
    {"unfinished", "data: a\n\ndata: b\n", {"|a"}},
    {"utf-8", "data: \xC3\xA9\xE2\x82\xAC\n\n", {"|\xC3\xA9\xE2\x82\xAC"}},
};

TEST(Sse, EventsComeOutHoweverTheBytesAreCut) {
  for (const Case& test : kCases) {
    SCOPED_TRACE(test.name);
    for (std::size_t step = 1; step <= test.bytes.size(); ++step) {
      SseParser parser;
      std::vector<std::string> found;
      for (std::size_t at = 0; at < test.bytes.size(); at += step) {
        for (std::string& event : events(parser, std::string_view(test.bytes).substr(at, step))) {
          found.push_back(std::move(event));
        }
      }
      ASSERT_EQ(found, test.events) << "in pieces of " << step;
    }
  }
}

TEST(Sse, FramesComeBackAsTheyWere) {
  EXPECT_EQ(sse_frame("{\"a\":1}"), "data: {\"a\":1}\n\n");
  EXPECT_EQ(sse_frame("[DONE]"), "data: [DONE]\n\n");
  for (const std::string text : {"", " a", "a\nb", "a\n", "\n\n", "a\r\nb\rc"}) {
    SseParser parser;
    const std::vector<std::string> found = events(parser, sse_frame(text));
    ASSERT_EQ(found.size(), 1u);
    EXPECT_EQ(found[0], "|" + (text == "a\r\nb\rc" ? "a\nb\nc" : text));
  }
}

TEST(Sse, AnEndlessEventIsRefused) {
  SseParser lines(1000), line(1000);
  const auto ignore = [](const SseEvent&) {};
  EXPECT_THROW(for (int i = 0; i < 1000; ++i) line.feed("data: aaaa", ignore), Error);
  EXPECT_THROW(for (int i = 0; i < 1000; ++i) lines.feed("data: a\n", ignore), Error);
}

}  // namespace
}  // namespace bise
