// Context-free grammars in Lark.
#include <gtest/gtest.h>

#include "tests/grammar/grammar_support.h"

namespace bise {
namespace {

struct Case {
  const char* grammar;
  std::vector<std::string> yes, no;
};

const Case kCases[] = {
    {"start: \"a\" B+ | /x[yz]{2}/i\nB: \"b\"..\"d\" // comment\n", {"abcd", "XyZ"}, {"a", "xy", "ae"}},
    {R"x(
?start: sum
?sum: product | sum "+" product -> add
    | sum "-" product -> sub
?product: atom
    | product "*" atom -> mul
?atom: NUMBER -> number
    | "-" atom
    | "(" sum ")"
%import common.NUMBER
%import common.WS_INLINE
%ignore WS_INLINE
)x",
     {"1", "1+2*3", " ( 1 + 2.5 ) * -3 ", "1e5 -\t2"},
     {"", "1+", "(1", "1\n", "x"}},
    {"start: [\"a\"] \"b\"? (\"c\" | \"d\")~2 \"e\"~0..2\n", {"abcd", "dd", "ccee"}, {"c", "cceee", "bacc"}},
    {"start: WORD (\",\" WORD)*\n%import common (WORD, INT)\n%import common.CNAME -> ID\n",
     {"ab,c"},
     {"ab,", "1"}},
    {"!start.2 : SELECT /[a-z]+/\nSELECT.-1: \"select \"i\n", {"SELECT x", "select ab"}, {"SELECT X"}},
    {"start: \"\\\"\\u20ac\\n\" _tail\n_tail: /\\/[^\\/]/\n", {"\"\xE2\x82\xAC\n/x"}, {"\"\xE2\x82\xAC\n//"}},
    {"start: \"f\" %json {\"properties\": {\"a}\": {\"type\": \"integer\"}}} \";\"\n",
     {"f{\"a}\":1};", "f{};"},
     {"f;", "f{\"a}\":\"\"};"}},
};

TEST(Lark, Matches) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.grammar);
    GrammarPtr grammar;
    ASSERT_EQ(error_of([&] { grammar = compile_ebnf(c.grammar); }), "");
    for (const std::string& text : c.yes) EXPECT_TRUE(matches(grammar, text)) << text;
    for (const std::string& text : c.no) EXPECT_FALSE(matches(grammar, text)) << text;
  }
}

TEST(Lark, RefusesWhatIsWrong) {
  const struct {
    std::string grammar;
    const char* says;
  } cases[] = {
      {"a: \"b\"", "no rule 'start'"},
      {"start: missing", "no rule 'missing'"},
      {"start: \"a\"\nstart: \"b\"", "defined twice"},
      {"start: \"a", "without '\"'"},
      {"start: /a", "without '/'"},
      {"start: (\"a\"", "without ')'"},
      {"start: \"a\"\n%declare X", "unsupported directive"},
      {"start: \"a\"\n%import python.NAME", "only `common`"},
      {"start: X\n%import common.NOPE", "has no NOPE"},
      {"start: \"ab\"..\"c\"", "range"},
      {"start: \"a\"~3..1", "below its minimum"},
      {"start: <a", "control token"},
      {"start: %json {\"type\": 3}", "type is wrong"},
      {"start: %json {", "without its end"},
      {"start: t{x}\nt{a}: a", "repetition count"},
      {"start start", "expected ':'"},
  };
  for (const auto& c : cases) {
    const std::string message = error_of([&] { compile_ebnf(c.grammar); });
    EXPECT_NE(message.find(c.says), std::string::npos) << c.grammar << ": " << message;
  }
}

// A control token is matched as a token, never as its name written out.
TEST(Lark, ControlTokensAreTokens) {
  const std::vector<TokenText> tokens = {{"[TOOL_CALLS]", true}, {"[", false},  {"TOOL_CALLS]", false},
                                         {"f", false},           {"{}", false}, {"<|x|>", true},
                                         {"</s>", true}};
  const auto trie = std::make_shared<const TokenTrie>(tokens, 7);
  const GrammarPtr grammar = compile_ebnf("start: (<[TOOL_CALLS]> \"f\" \"{}\")+ <|x|>");
  Matcher matcher(grammar, trie, {6});
  const auto allowed = [&] {
    std::vector<std::uint32_t> bits(trie->mask_words());
    matcher.fill_mask(bits);
    return bits[0];
  };
  EXPECT_EQ(allowed(), 1u << 0);
  EXPECT_FALSE(matcher.accept(1));
  for (const std::int32_t token : {0, 3, 4, 0, 3, 4}) EXPECT_TRUE(matcher.accept(token));
  EXPECT_EQ(allowed(), 1u << 0 | 1u << 5);
  EXPECT_TRUE(matcher.accept(5));
  EXPECT_EQ(allowed(), 1u << 6);
  EXPECT_TRUE(matcher.accept(6));
  EXPECT_TRUE(matcher.finished());
}

}  // namespace
}  // namespace bise
