// Where a text that comes in pieces ends.
#include "text/stop_strings.h"

#include <gtest/gtest.h>

namespace bise {
namespace {

struct Case {
  const char* text;
  std::vector<std::string> stop;
  const char* expected;
  const char* matched;   // "" = none
  const char* included;  // with include
};

const std::vector<Case> kCases = {
    {"one two three", {}, "one two three", "", "one two three"},
    {"one two three", {"two"}, "one ", "two", "one two"},
    // The one that is complete first, not the one that begins first.
    {"abcdef", {"abcde", "cd"}, "ab", "cd", "abcd"},
    // Complete at the same place: the first listed.
    {"abcdef", {"cd", "bcd"}, "ab", "cd", "abcd"},
    {"abcdef", {"bcd", "cd"}, "a", "bcd", "abcd"},
    {"aab aab aac", {"aac"}, "aab aab ", "aac", "aab aab aac"},
    {"aaab", {"aab"}, "a", "aab", "aaab"},
    {"one two", {"two!"}, "one two", "", "one two"},
    {"h\xC3\xA9llo", {"\xC3\xA9"}, "h", "\xC3\xA9", "h\xC3\xA9"},
};

std::string run(const Case& test, std::size_t piece, bool include, std::string& matched) {
  StopStrings stops(test.stop, include);
  const std::string text = test.text;
  std::string out;
  for (std::size_t at = 0; at < text.size(); at += piece) out += stops.push(text.substr(at, piece));
  out += stops.finish();
  matched = stops.matched() ? *stops.matched() : "";
  return out;
}

TEST(StopStrings, EndTheTextWhateverThePieces) {
  for (const Case& test : kCases) {
    for (std::size_t piece = 1; piece <= 14; ++piece) {
      std::string matched;
      EXPECT_EQ(run(test, piece, false, matched), test.expected) << test.text << " by " << piece;
      EXPECT_EQ(matched, test.matched);
      EXPECT_EQ(run(test, piece, true, matched), test.included) << test.text << " by " << piece;
    }
  }
}

TEST(StopStrings, HoldBackOnlyWhatMayBeginOne) {
  StopStrings stops({"STOP"});
  EXPECT_EQ(stops.push("go S"), "go ");
  EXPECT_EQ(stops.push("T"), "");
  EXPECT_EQ(stops.push("A"), "STA");
  EXPECT_EQ(stops.push("STO"), "");
  EXPECT_EQ(stops.finish(), "STO");
}

TEST(StopStrings, IgnoreMatchesThatEndBeforeTheyMay) {
  StopStrings stops({"ab"});
  std::string out = stops.push("ab", false);
  EXPECT_EQ(stops.matched(), nullptr);
  out += stops.push("ca", false);
  out += stops.push("b", true);  // begins before, ends after
  ASSERT_NE(stops.matched(), nullptr);
  EXPECT_EQ(out + stops.finish(), "abc");
  EXPECT_EQ(stops.push("more"), "");
}

}  // namespace
}  // namespace bise
