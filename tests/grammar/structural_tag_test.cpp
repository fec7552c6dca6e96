// Structural tags in both forms.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/grammar/grammar_support.h"

namespace bise {
namespace {

GrammarPtr compile(const std::string& text) {
  return compile_structural_tag(parse_json(text, "test"));
}

struct Case {
  const char* description;
  std::vector<std::string> yes, no;
};

const Case kCases[] = {
    {R"({"type": "structural_tag", "triggers": ["<f="], "structures": [
         {"begin": "<f=a>", "schema": {"properties": {"x": {"type": "integer"}}}, "end": "</f>"},
         {"begin": "<f=b>", "schema": {"type": "boolean"}, "end": "</f>"}]})",
     {"", "plain <text> \xC3\xA9", "<f=a>{\"x\":1}</f>", "so <f=b>true</f> and <f=a>{}</f>.",
      "<f<f=b>false</f>"},
     {"<f=", "<f=c>", "x<f=a>{\"x\":\"y\"}</f>", "<f=b>true", "\xC3", "<f=b>true</f><f=b>1</f>"}},
    {R"({"type": "structural_tag", "format": {"type": "triggered_tags", "triggers": ["<t"], "at_least_one": true, "stop_after_first": true,
         "tags": [{"type": "tag", "begin": "<tool>", "content": {"type": "json_schema", "json_schema": {"type": "integer"}}, "end": "</tool>"}]}})",
     {"<tool>1</tool>", "text <tool>2</tool>"},
     {"", "text", "<tool>1</tool>x", "<tool>a</tool>"}},
    {R"({"type": "structural_tag", "format": {"type": "sequence", "elements": [
         {"type": "tag", "begin": "<think>", "content": {"type": "any_text"}, "end": "</think>"},
         {"type": "or", "elements": [{"type": "const_string", "value": "yes"}, {"type": "regex", "pattern": "n+o"}]},
         {"type": "optional", "content": {"type": "grammar", "grammar": "root ::= \"!\"+"}}]}})",
     {"<think></think>yes", "<think>a<b></think>nno!!"},
     {"<think>x</think></think>yes", "yes", "<think>yes"}},
    {R"x({"type": "structural_tag", "format": {"type": "tags_with_separator", "separator": ",", "at_least_one": true,
         "tags": [{"begin": "(", "content": {"type": "json_schema", "json_schema": {"type": "null"}}, "end": [")", "]"]}]}
})x",
     {"(null)", "(null],(null)"},
     {"", "(null),", "(null)(null)"}},
};

TEST(StructuralTag, Matches) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.description);
    GrammarPtr grammar;
    ASSERT_EQ(error_of([&] { grammar = compile(c.description); }), "");
    for (const std::string& text : c.yes) EXPECT_TRUE(matches(grammar, text)) << text;
    for (const std::string& text : c.no) EXPECT_FALSE(matches(grammar, text)) << text;
  }
}

TEST(StructuralTag, RefusesWhatIsWrong) {
  const struct {
    const char *description, *says;
  } cases[] = {
      {"[]", "wrong type"},
      {"{}", "format"},
      {R"({"structures": []})", "structures"},
      {R"({"structures": [{"begin": "a", "end": "b"}], "triggers": ["a"]})", "schema"},
      {R"({"structures": [{"begin": "a", "schema": {}, "end": "b"}], "triggers": ["x"]})", "no tag begins"},
      {R"({"structures": [{"begin": "a", "schema": {}, "end": "b"}, {"begin": "c", "schema": {}, "end": ""}], "triggers": ["a"]})",
       "no trigger begins"},
      {R"({"structures": [{"begin": "a", "schema": {}, "end": "b"}], "triggers": [""]})", "not empty"},
      {R"({"format": {"type": "magic"}})", "unsupported type"},
  };
  for (const auto& c : cases) {
    const std::string message = error_of([&] { compile(c.description); });
    EXPECT_NE(message.find(c.says), std::string::npos) << c.description << ": " << message;
  }
}

}  // namespace
}  // namespace bise
