// Context-free grammars in GBNF.
#include <gtest/gtest.h>

#include "tests/grammar/grammar_support.h"

namespace bise {
namespace {

struct Case {
  const char* grammar;
  std::vector<std::string> yes, no;
};

const Case kCases[] = {
    {"root ::= \"a\" [b-d]* | \"x\"", {"a", "abcd", "x"}, {"", "ax", "b"}},
    {"root ::= a \"-\" a # comment\na ::= (\"1\" | \"2\"\n | \"3\"){2,3}\n", {"12-333"}, {"1-22", "1234-11"}},
    {"root ::= \"\\n\\t\\\"\\\\\\x41\\u20ac\" . [^\\n\"]",
     {"\n\t\"\\A\xE2\x82\xACzz"},
     {"\n\t\"\\A\xE2\x82\xACz\n"}},
    // Recursion in the middle, on the right, on the left, through other rules and behind empty rules.
    {"root ::= \"(\" root \")\" | \"\"", {"", "()", "((()))"}, {"(", "())", ")("}},
    {"root ::= \"a\" root | \"b\"", {"b", "aaab"}, {"a", "ba"}},
    {"root ::= root \"+\" term | term\nterm ::= term \"*\" f | f\nf ::= [0-9] | \"(\" root \")\"",
     {"1", "1+2*3", "(1+2)*3", "((1))+1*1"},
     {"", "+1", "1+", "(1", "1)", "1++2"}},
    {"root ::= a\na ::= b \"x\" | \"a\"\nb ::= c \"y\" | a \"z\" | \"b\"\nc ::= a \"w\" | b",
     {"a", "bx", "azx", "bxzx", "awyx", "byx", "byyx"},
     {"b", "ax", "byz"}},
    {"root ::= e root \"x\" | \"y\"\ne ::= \"\" | \"e\"",
     {"y", "yx", "yxx",
      "ey"
      "x",
      "eeyxx"},
     {"", "x", "eey"}},
    {"root ::= root root | \"a\"", {"a", "aa", "aaaaaaa"}, {"", "b"}},
    {"root ::= root | \"a\"", {"a"}, {"aa"}},
    {"root ::= x x x\nx ::= y?\ny ::= x \"a\" | \"b\"", {"", "a", "baa", "bbb", "bababaaa"}, {"c"}},
    {"root ::= \"a\" x \"b\" | \"a\" y \"c\" | \"\"\nx ::= root\ny ::= root",
     {"ab", "ac", "aaabcb"},
     {"a", "aab"}},
    // Rules that can never end are left out.
    {"root ::= \"a\" | dead\ndead ::= \"b\" dead", {"a"}, {"b"}},
};

TEST(Gbnf, Matches) {
  for (const Case& c : kCases) {
    const GrammarPtr grammar = compile_ebnf(c.grammar);
    for (const std::string& text : c.yes) EXPECT_TRUE(matches(grammar, text)) << c.grammar << "\non " << text;
    for (const std::string& text : c.no) EXPECT_FALSE(matches(grammar, text)) << c.grammar << "\non " << text;
  }
}

TEST(Gbnf, RefusesWhatIsWrong) {
  const struct {
    std::string grammar;
    const char* says;
  } cases[] = {
      {"a ::= \"b\"", "no rule 'root'"},
      {"root ::= missing", "no rule 'missing'"},
      {"root ::= \"a\"\nroot ::= \"b\"", "defined twice"},
      {"root ::= root", "matches no text"},
      {"root ::= \"a\" root", "matches no text"},
      {"root ::= \"a", "without '\"'"},
      {"root ::= (\"a\"", "without ')'"},
      {"root ::= \"a\")", "expected a rule"},
      {"root ::= [a", "without ']'"},
      {"root ::= \"\\q\"", "unknown escape"},
      {"root ::= \"a\"{3,1}", "below its minimum"},
      {"root ::= \"a\" (=\"b\")", "look-ahead"},
      {"root ::= \"a\"*********************", "quantifiers in a row"},
      {"root ::= " + std::string(100, '(') + "\"a\"" + std::string(100, ')'), "nesting"},
      {"root ::= ((\"abcdefgh\"){1000}){1000}", "too large"},
  };
  for (const auto& c : cases) {
    const std::string message = error_of([&] { compile_ebnf(c.grammar); });
    EXPECT_NE(message.find(c.says), std::string::npos) << c.grammar << ": " << message;
  }
}

// Every reading of "aaaa..." by this grammar is a different tree; the cost must stay polynomial.
TEST(Gbnf, AmbiguityDoesNotExplode) {
  const GrammarPtr grammar = compile_ebnf(
      "root ::= s\ns ::= \"a\" x \"b\" | \"a\" y \"b\" | s s | \"\"\nx ::= s \"\" | s s\ny ::= s | x x");
  std::string text;
  for (int i = 0; i < 60; ++i) text += "a";
  for (int i = 0; i < 60; ++i) text += "b";
  EXPECT_TRUE(matches(grammar, text));
  EXPECT_FALSE(matches(grammar, text + "b"));
}

TEST(Gbnf, DeepTextsNeedNoStack) {
  const GrammarPtr grammar = compile_ebnf("root ::= \"(\" root \")\" | \"\"");
  const int depth = 20'000;
  EXPECT_TRUE(matches(grammar, std::string(depth, '(') + std::string(depth, ')')));
}

}  // namespace
}  // namespace bise
