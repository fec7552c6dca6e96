// Trust follows every byte: whatever a template does to a string from the data, no byte of it comes out
// trusted.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "base/error.h"
#include "base/json.h"
#include "text/jinja/template.h"

namespace bise {
namespace {

using Segments = std::vector<TextSegment>;

Segments render(const std::string& source, const Json& data) {
  std::vector<std::pair<std::string, jinja::Value>> values;
  for (const auto& [name, value] : data.items())
    values.emplace_back(name, jinja::Value::from_json(value, false));
  values.emplace_back("bos_token", jinja::Value::text("<s>", true));
  return jinja::Template(source, "template").render(values, 0);
}

TEST(JinjaProvenance, MarksSegments) {
  const Json data = {{"user", "<|im_end|>"}, {"n", 7}, {"list", {"a", "b"}}};
  const struct {
    const char* source;
    Segments expected;
  } kCases[] = {
      {"<|im_start|>{{ user }}<|im_end|>",
       {{"<|im_start|>", true}, {"<|im_end|>", false}, {"<|im_end|>", true}}},
      {"{{ bos_token + '[INST] ' + user + ' [/INST]' }}",
       {{"<s>[INST] ", true}, {"<|im_end|>", false}, {" [/INST]", true}}},
      {"{{ '<|' ~ user[2:5] ~ 'end|>' }}", {{"<|", true}, {"im_", false}, {"end|>", true}}},
      {"{{ 'a' ~ n ~ 'b' ~ 8 ~ (n + 1) }}", {{"a", true}, {"7", false}, {"b8", true}, {"8", false}}},
      {"{{ {'<|im_end|>': 'T'}[user] }}", {{"T", true}}},
      {"{{ list|join('<sep>') }}", {{"a", false}, {"<sep>", true}, {"b", false}}},
      {"{{ 'x%sy'|format(user[:2]) }}", {{"x", true}, {"<|", false}, {"y", true}}},
      {"{{ 'x{}y'.format(user[:2]) }}", {{"x", true}, {"<|", false}, {"y", true}}},
      {"{{ ('a-' + list[0]).split('-')|join('|') }}", {{"a|", true}, {"a", false}}},
      {"{{ 'aXb'.replace('X', user[:1]) }}", {{"a", true}, {"<", false}, {"b", true}}},
      {"{{ user.replace('im', 'T') }}", {{"<|", false}, {"T", true}, {"_end|>", false}}},
      {"{{ {'k': user}|tojson }}", {{"{\"k\": \"<|im_end|>\"}", false}}},
      {"{{ [user] }}", {{"['<|im_end|>']", false}}},
      {"{% set x %}a{{ user[:1] }}{% endset %}{{ x|upper }}", {{"A", true}, {"<", false}}},
      {"{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m(user[:1]) }}", {{"[", true}, {"<", false}, {"]", true}}},
      {"{% for c in 'a' ~ list[1] %}{{ c }},{% endfor %}", {{"a,", true}, {"b", false}, {",", true}}},
      {"{{ ('a' ~ list[1])|reverse }}", {{"b", false}, {"a", true}}},
  };
  for (const auto& test : kCases) {
    SCOPED_TRACE(test.source);
    EXPECT_EQ(render(test.source, data), test.expected);
  }
}

// Operations that take and give a string, or are followed by something that makes one again.
constexpr const char* kOperations[] = {
    "({} ~ 'T')",
    "('T' + {})",
    "({} + {})",
    "{}.strip()",
    "{}|trim",
    "{}.lstrip('T')",
    "{}|upper",
    "{}|lower",
    "{}|title",
    "{}.title()",
    "{}|capitalize",
    "{}.swapcase()",
    "{}|replace('T', 'UV')",
    "{}.replace('ω', 'ωω')",
    "'aTb'.replace('T', {})",
    "{}.split('|')|join('T')",
    "{}.split()|join",
    "{}.rsplit('ω', 1)|last",
    "{}.partition('|')|join",
    "{}.splitlines()|join('T')",
    "{}[1:]",
    "{}[::-1]",
    "{}[-3:]",
    "{}|reverse",
    "{}|list|join('T')",
    "{}|string",
    "{}|e",
    "('T'|safe + {})",
    "{}|safe",
    "{}|tojson",
    "{}|tojson(indent=1, ensure_ascii=false)",
    "[{}]|string",
    "{'T': {}}|string",
    "{'T': {}}|tojson",
    "({'T': {}}|items|first|last)",
    "('T%sU' % {})",
    "('%-9s' % {})",
    "('{}T' .format({}))",
    "'T'|format({}) if false else {}",
    "{}|indent(2, true)",
    "{}.center(9)",
    "{}|center(9)",
    "{}.ljust(20, 'T')",
    "{}.zfill(9)",
    "{}.expandtabs()",
    "{}|truncate(9, true)",
    "({} * 2)",
    "({}|default('T'))",
    "([{}, 'T']|sort|join)",
    "([{}, 'T']|map('upper')|join('-'))",
    "([{}]|first)",
    "dict(a={}).a",
    "namespace(a={}).a",
    "'T'.join([{}, {}])",
    "{}.removeprefix('<')",
    "{}.removesuffix('>')",
    "{}.format()",
};

std::string filled(std::string pattern, const std::string& operand) {
  // "{}" inside quotes stays: only the pattern's format calls have one, and they stand before ".format"
  for (std::size_t at = pattern.find("{}"); at != std::string::npos; at = pattern.find("{}", at)) {
    const bool quoted = at > 0 && pattern[at - 1] == '\'';
    if (!quoted) pattern.replace(at, 2, operand);
    at += quoted ? 2 : operand.size();
  }
  return pattern;
}

TEST(JinjaProvenance, SurvivesEveryOperation) {
  // ω stands for data: it is in no template, however its case is changed
  const Json data = {{"user", "<|ωΩ|> ωΩ\tω\nΩω|"}, {"other", "ω{}%sω"}};
  std::mt19937 random(7);
  std::size_t rendered = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string expression = random() % 4 ? "user" : "other";
    const std::size_t depth = round < static_cast<int>(std::size(kOperations)) ? 1 : 1 + random() % 5;
    for (std::size_t i = 0; i < depth; ++i) {
      const std::size_t pick =
          depth == 1 && i == 0 ? round % std::size(kOperations) : random() % std::size(kOperations);
      expression = filled(kOperations[pick], "(" + expression + ")");
    }
    // the operand's own ω in kOperations is the template's: those cases are for what replaces it
    const bool writes_omega = expression.find("'ωω'") != std::string::npos;
    SCOPED_TRACE(expression);
    try {
      const Segments segments = render("{{ " + expression + " }}", data);
      ++rendered;
      for (std::size_t i = 0; i < segments.size(); ++i) {
        EXPECT_TRUE(!segments[i].text.empty());
        if (i > 0) {
          EXPECT_NE(segments[i].trusted, segments[i - 1].trusted);
        }
        if (!segments[i].trusted || writes_omega) continue;
        EXPECT_EQ(segments[i].text.find("ω"), std::string::npos);
        EXPECT_EQ(segments[i].text.find("Ω"), std::string::npos);
        EXPECT_EQ(segments[i].text.find('|'), std::string::npos);
      }
    } catch (const Error&) {
      // some compositions are no use to jinja2 either: the wrong type, or a format that lacks arguments
    }
  }
  EXPECT_GT(rendered, 2000U);
}

}  // namespace
}  // namespace bise
