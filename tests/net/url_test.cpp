#include "net/url.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace bise {
namespace {

TEST(Url, PartsOfGoodOnes) {
  struct Case {
    std::string text, whole, host, path, query;
    int port;
  };
  const Case cases[] = {
      {"http://host", "http://host/", "host", "/", "", 80},
      {"HTTPS://Host.Example:443/A", "https://host.example/A", "host.example", "/A", "", 443},
      {"http://h:8000/v1/models?x=1&y=a b#part", "http://h:8000/v1/models?x=1&y=a%20b", "h", "/v1/models",
       "x=1&y=a%20b", 8000},
      {"http://h?q", "http://h/?q", "h", "/", "q", 80},
      {"http://[::1]:8000/x", "http://[::1]:8000/x", "::1", "/x", "", 8000},
      {"http://[::1]/", "http://[::1]/", "::1", "/", "", 80},
      {"https://h/caf\xC3\xA9/%41", "https://h/caf%C3%A9/%41", "h", "/caf%C3%A9/%41", "", 443},
      {"http://h:/", "http://h/", "h", "/", "", 80},
  };
  for (const Case& test : cases) {
    const Url url = parse_url(test.text);
    EXPECT_EQ(url.text(), test.whole);
    EXPECT_EQ(url.host, test.host);
    EXPECT_EQ(url.path, test.path);
    EXPECT_EQ(url.query, test.query);
    EXPECT_EQ(url.port, test.port);
    EXPECT_EQ(parse_url(url.text()).text(), url.text());
  }
  const Url url = parse_url("http://me:p%40ss@proxy:3128");
  EXPECT_EQ(url.user + " " + url.password + " " + url.authority(), "me p@ss proxy:3128");
  EXPECT_EQ(url.text(), "http://proxy:3128/") << "secrets stay out of messages";
}

TEST(Url, BadOnesAreErrors) {
  const std::string texts[] = {"",
                               "host",
                               "/path",
                               "ftp://host/",
                               "file:///etc/passwd",
                               "http://",
                               "http:///x",
                               "http://h:0/",
                               "http://h:65536/",
                               "http://h:-1/",
                               "http://h:8 0/",
                               "http://a b/",
                               "http://a\r\nHost: b/",
                               "http://h/a\r\nX: b",
                               "http://[::1/",
                               "http://[host]/",
                               "http://h\xC3\xA9/",
                               "http://" + std::string(300, 'a') + "/",
                               "http://h/" + std::string(70000, 'a')};
  for (const std::string& text : texts) EXPECT_THROW(parse_url(text), Error) << text.substr(0, 40);
}

TEST(Url, ReferencesAreResolvedAgainstTheirBase) {
  const Url base = parse_url("https://user:pw@h:444/a/b/c?q=1");
  const std::pair<const char*, const char*> cases[] = {
      {"http://other/x", "http://other/x"}, {"//other/x", "https://other/x"},
      {"/x?y", "https://h:444/x?y"},        {"x", "https://h:444/a/b/x"},
      {"./x", "https://h:444/a/b/x"},       {"../x", "https://h:444/a/x"},
      {"../../../../x", "https://h:444/x"}, {"..", "https://h:444/a/"},
      {"?z=2", "https://h:444/a/b/c?z=2"},  {"", "https://h:444/a/b/c?q=1"},
      {"/a:b", "https://h:444/a:b"},        {"#part", "https://h:444/a/b/c?q=1"},
  };
  for (const auto& [reference, whole] : cases) {
    EXPECT_EQ(resolve_url(base, reference).text(), whole) << reference;
  }
  EXPECT_EQ(resolve_url(base, "/x").user, "");
  EXPECT_THROW(resolve_url(base, "javascript:alert(1)"), Error);
  EXPECT_THROW(resolve_url(base, "/a\nb"), Error);
}

TEST(Url, PercentCodes) {
  EXPECT_EQ(percent_encoded("a b/c?\xC3\xA9"), "a%20b%2Fc%3F%C3%A9");
  EXPECT_EQ(percent_encoded("a b/c", "/"), "a%20b/c");
  EXPECT_EQ(percent_decoded("a%20b%2fc%zz%4"), "a b/c%zz%4");
}

}  // namespace
}  // namespace bise
