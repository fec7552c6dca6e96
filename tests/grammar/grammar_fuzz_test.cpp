// Damaged schemas, regular expressions, grammars and tags: they compile in bounded time or throw Error, and
// what compiles gives masks that agree with what is accepted.
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <random>

#include "base/clock.h"
#include "tests/formats/mutate.h"
#include "tests/grammar/grammar_support.h"

namespace bise {
namespace {

// A short way through the grammar, by bytes.
void walk(const GrammarPtr& grammar, std::mt19937& random) {
  Matcher matcher(grammar, byte_trie(), {kByteStop});
  std::vector<std::uint32_t> bits(byte_trie()->mask_words());
  for (int step = 0; step < 12 && !matcher.finished(); ++step) {
    matcher.fill_mask(bits);
    std::vector<std::int32_t> allowed;
    for (std::int32_t token = 0; token <= kByteStop; ++token)
      if (mask_bit(bits, token)) allowed.push_back(token);
    ASSERT_FALSE(allowed.empty());
    ASSERT_TRUE(matcher.accept(allowed[random() % allowed.size()]));
  }
}

void fuzz(const std::vector<std::string>& seeds,
          const std::function<GrammarPtr(const std::string&)>& compile) {
  std::mt19937 random(20261121);
  int accepted = 0, refused = 0;
  double slowest = 0;
  const Stopwatch watch;
  for (int i = 0; i < 20'000 && watch.seconds() < 2; ++i) {
    const std::string& seed = seeds[random() % seeds.size()];
    const std::string text =
        i < static_cast<int>(seeds.size()) ? seeds[static_cast<std::size_t>(i)] : mutated(seed, random);
    const Stopwatch one;
    try {
      walk(compile(text), random);
      ++accepted;
    } catch (const Error&) {
      EXPECT_GE(i, static_cast<int>(seeds.size())) << text;
      ++refused;
    }
    slowest = std::max(slowest, one.seconds());
  }
  EXPECT_GT(accepted, 20);
  EXPECT_GT(refused, 20);
  EXPECT_LT(slowest, 10);
}

TEST(GrammarFuzz, JsonSchema) {
  fuzz(
      {R"({"type": "object", "properties": {"a": {"type": "integer", "minimum": -3, "maximum": 1234.5}, "b": {"type": "array",
            "items": {"$ref": "#/$defs/x"}, "minItems": 1, "maxItems": 12}}, "required": ["a"], "$defs": {"x": {"enum": [1, "u", null]}}})",
       R"({"anyOf": [{"type": "string", "pattern": "^[a-z]{2,5}$", "maxLength": 9}, {"type": "number", "multipleOf": 0.5},
            {"type": "string", "format": "date-time"}], "title": "t"})",
       R"({"allOf": [{"properties": {"a": {"$ref": "#"}}, "additionalProperties": {"type": "null"}}, {"patternProperties": {"^x": true},
            "minProperties": 1}]})"},
      [](const std::string& text) { return compile_json_schema(std::string_view(text)); });
}

TEST(GrammarFuzz, Regex) {
  fuzz({"^(?:[a-z]+|\\d{3,5}(?P<n>x|y)*?)[^\\s,\\u00e9-\\u{1F600}]{0,20}$", "(a|b)*a(a|b){4}",
        "\\w+@[a-z.]+?\\x41(?i:B)"},
       [](const std::string& text) { return compile_regex(text); });
}

TEST(GrammarFuzz, Gbnf) {
  fuzz({"root ::= a \"x\"{2,4} | [^a-z\\n]+ # c\na ::= root \"+\" b | \"\\u20ac\"\nb ::= (a? \"y\")* .\n",
        "root ::= root root | \"a\" | x\nx ::= root \"b\" | \"\""},
       [](const std::string& text) { return compile_ebnf(text); });
}

TEST(GrammarFuzz, Lark) {
  fuzz({"?start: sum -> s\nsum: product | sum \"+\" product\nproduct.2: ATOM~1..3 | \"(\" sum [\",\"] "
        "\")\"\nATOM: /[0-9]+/i | \"a\"..\"f\"\n"
        "%import common.WS\n%ignore WS\n",
        "start: <|tool|> %json {\"type\": \"integer\"} \"end\"i?\n"},
       [](const std::string& text) { return compile_ebnf(text); });
}

TEST(GrammarFuzz, StructuralTag) {
  fuzz(
      {R"({"type": "structural_tag", "triggers": ["<f"], "structures": [{"begin": "<f=a>", "schema": {"type": "integer"}, "end": "</f>"}]})",
       R"x({"format": {"type": "sequence", "elements": [{"type": "tag", "begin": "<t>", "content": {"type": "any_text"}, "end": ["</t>", "x"]},
            {"type": "tags_with_separator", "separator": ",", "tags": [{"begin": "(", "content": {"type": "regex", "pattern": "a+"}, "end": ")"}]}]
}
})x"},
      [](const std::string& text) { return compile_structural_tag(parse_json(text, "fuzz")); });
}

}  // namespace
}  // namespace bise
