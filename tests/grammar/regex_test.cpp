// Regular expressions and choices: what they match, and what is refused.
#include <gtest/gtest.h>

#include "tests/grammar/grammar_support.h"

namespace bise {
namespace {

struct Case {
  const char* pattern;
  std::vector<std::string> yes, no;
};

const Case kCases[] = {
    {"abc", {"abc"}, {"", "ab", "abcd", "Abc"}},
    {"", {""}, {"a"}},
    {"a|bc|", {"a", "bc", ""}, {"b", "abc"}},
    {"a*b+c?", {"b", "aab", "abbc"}, {"a", "abcc"}},
    {"a{2}b{1,3}c{2,}d{,2}", {"aabcc", "aabbbccccdd"}, {"abcc", "aabbbbcc", "aabc", "aabccddd"}},
    {"(ab)+?x", {"abx", "ababx"}, {"x", "aba"}},
    {"(?:a|(?P<n>b)|(?<m>c)){2}", {"ab", "cc", "ba"}, {"a", "abc"}},
    {"^ab$", {"ab"}, {"xab", "abx"}},
    {"^a|b$", {"a", "b"}, {"ab"}},
    {"\\Aab\\Z", {"ab"}, {"abb"}},
    {"[a-c_][^a-c]", {"ax", "_\n", "b\xC3\xA9"}, {"dx", "ab", "a\xFF"}},
    {"[]a]+", {"]", "a]"}, {"b"}},
    {"[a\\-z]+", {"a-z"}, {"b"}},
    {"[a-]+", {"a-"}, {"b"}},
    {"\\d{3}-\\d{4}", {"555-0123"}, {"555-012", "5555-0123"}},
    {"\\w+\\s\\S\\D\\W", {"ab_1 xy!"}, {"ab xy1", "abxy!"}},
    {"a.c",
     {"abc",
      "a\xE2\x82\xAC"
      "c"},
     {"a\nc", "ac",
      "a\xE2\x82"
      "c"}},
    {"(?s)a.c", {"a\nc"}, {"ac"}},
    {"(?i)aB\\x43", {"abc", "ABC"}, {"abd"}},
    {"x(?i:a)b", {"xAb", "xab"}, {"xAB", "Xab"}},
    {"\\u20ac\\x41\\u{1F600}\\ud83d\\ude00",
     {"\xE2\x82\xAC"
      "A\xF0\x9F\x98\x80\xF0\x9F\x98\x80"},
     {"A"}},
    {"a{x}{", {"a{x}{"}, {"aa"}},
    {"\\{\\}\\.\\/\\-\\_", {"{}./-_"}, {"{}x/-_"}},
    {"[\xC3\xA9-\xC3\xBC]+", {"\xC3\xA9\xC3\xBA"}, {"e", "\xC3"}},
    {"(a*)*b", {"b", "aaab"}, {"a"}},
    {"(a|b)*a(a|b){5}", {"abbbbb", "aaaaaaaa"}, {"bbbbbb", "bbbbbbb"}},
};

TEST(Regex, MatchesTheWholeText) {
  for (const Case& c : kCases) {
    const GrammarPtr grammar = compile_regex(c.pattern);
    for (const std::string& text : c.yes) EXPECT_TRUE(matches(grammar, text)) << c.pattern << " on " << text;
    for (const std::string& text : c.no) EXPECT_FALSE(matches(grammar, text)) << c.pattern << " on " << text;
  }
}

TEST(Regex, RefusesWhatItCannotDo) {
  const struct {
    std::string pattern;
    const char* says;
  } cases[] = {
      {"a(?=b)", "look-around"},
      {"(?<!a)b", "look-around"},
      {"(a)\\1", "back references"},
      {"\\bword", "word boundaries"},
      {"\\p{L}", "Unicode properties"},
      {"a*+", "possessive"},
      {"a**", "quantifier after a quantifier"},
      {"*a", "without anything to repeat"},
      {"(a", "without ')'"},
      {"a)", "unexpected ')'"},
      {"[a", "without ']'"},
      {"[z-a]", "bad range"},
      {"a{3,2}", "below its minimum"},
      {"a{99999999}", "a count above"},
      {"a^b", "'^' is supported at the start only"},
      {"a$b", "'$' is supported at the end only"},
      {"(^a)*", "'^' is supported at the start only"},
      {"\\q", "unknown escape"},
      {"a\\", "unexpected end"},
      {"\xFF", "not valid UTF-8"},
      {"[^\\s\\S]", "matches no text"},
      {"(a|b)*a(a|b){30}", "states"},
      {"((a{1000}){1000}){1000}", "too large"},
      {std::string(100, '(') + std::string(100, ')'), "nesting"},
      {"(.{0,500}a){0,500}b", "too large"},
  };
  for (const auto& c : cases) {
    const std::string message = error_of([&] { compile_regex(c.pattern); });
    EXPECT_NE(message.find(c.says), std::string::npos) << c.pattern << ": " << message;
  }
}

TEST(Choice, IsOneOfTheTexts) {
  const std::vector<std::string> choices = {"yes", "no", "not sure", "\xC3\xA9"};
  const GrammarPtr grammar = compile_choice(choices);
  for (const std::string& text : choices) EXPECT_TRUE(matches(grammar, text));
  for (const char* text : {"", "n", "note", "yesno", "\xC3"}) EXPECT_FALSE(matches(grammar, text)) << text;
  EXPECT_NE(error_of([] { compile_choice({}); }), "");
  const std::vector<std::string> bad = {"\xFF"};
  EXPECT_NE(error_of([&] { compile_choice(bad); }), "");
}

}  // namespace
}  // namespace bise
