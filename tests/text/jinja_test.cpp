// The Jinja engine against what jinja2 3.1.6 renders: tests/data/jinja/cases.json, whose expectations its
// expect.py writes; and the bounds that stop a hostile template.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "base/json.h"
#include "tests/test_support.h"
#include "text/jinja/template.h"

namespace bise {
namespace {

using Variables = std::vector<std::pair<std::string, jinja::Value>>;

std::string render(const std::string& source, const Json& variables) {
  Variables values;
  for (const auto& [name, value] : variables.items())
    values.emplace_back(name, jinja::Value::from_json(value, false));
  // 2024-07-26 12:00 UTC, the time that expect.py uses
  std::string text;
  for (const TextSegment& segment : jinja::Template(source, "template").render(values, 1721995200))
    text += segment.text;
  return text;
}

TEST(Jinja, RendersWhatJinja2Renders) {
  const Json data = read_json_file(test_data("jinja/cases.json"));
  std::size_t checked = 0;
  for (const Json& entry : data["cases"]) {
    Json variables = data["variables"];
    if (entry.contains("conversation"))
      variables.update(data["conversations"][entry["conversation"].get<std::string>()]);
    if (entry.contains("variables")) variables.update(entry["variables"]);
    const std::string source = entry.contains("file")
                                   ? read_file(test_data("jinja") / entry["file"].get<std::string>())
                                   : entry["template"].get<std::string>();
    SCOPED_TRACE(source.substr(0, 300));
    if (entry.contains("error")) {
      EXPECT_THROW(render(source, variables), Error);
    } else {
      EXPECT_EQ(render(source, variables), entry["expected"].get<std::string>());
    }
    ++checked;
  }
  EXPECT_GT(checked, 100U);
}

TEST(Jinja, ErrorsNameTemplateAndLine) {
  const struct {
    const char* source;
    const char* message;
  } kCases[] = {
      {"a\nb\n{{ x.y.z }}", "template: line 3: 'x' is undefined"},
      {"{% set d = {} %}\n{{ d.y.z }}", "template: line 2: 'dict object' has no attribute 'y'"},
      {"\n\n{{ 'a'|nope }}", "template: line 3: no filter named 'nope'"},
      {"\n{% if 1 is nope %}{% endif %}", "template: line 2: no test named 'nope'"},
      {"{{ 'a'.nope() }}", "template: line 1: 'str object' has no attribute 'nope'"},
      {"{% macro m() %}\n{{ raise_exception('no') }}{% endmacro %}\n\n{{ m() }}", "template: line 2: no"},
      {"\n{% include 'x' %}", "template: line 2: unknown or unsupported tag 'include'"},
      {"{% for x in y %}\n", "template: line 1: unexpected end of template, looking for 'else'"},
      {"\n{{ 'abc }}", "template: line 2: unclosed string that starts on line 2"},
      {"{{ (1 }}", "template: line 1: unexpected '}', expected ')'"},
      {"{% set l = [] %}{{ l.append(1) }}",
       "template: line 1: a template must not change a list: build a new one, or use a namespace"},
      {"{{ 9223372036854775807 + 1 }}", "template: line 1: the result of + is beyond 64 bits"},
  };
  for (const auto& test : kCases) {
    SCOPED_TRACE(test.source);
    try {
      render(test.source, Json::object());
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), test.message);
    }
  }
}

std::string repeated(const std::string& part, std::size_t times) {
  std::string text;
  for (std::size_t i = 0; i < times; ++i) text += part;
  return text;
}

// Each would run for ever, or take all memory or stack, if nothing stopped it.
TEST(Jinja, StopsHostileTemplates) {
  const std::string loop = "{% for a in range(100000) %}";
  const std::string end = "{% endfor %}";
  const std::string kTemplates[] = {
      loop + loop + loop + end + end + end,
      loop + loop + "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" + end + end,
      "{% set ns = namespace(x='ab') %}" + loop + "{% set ns.x = ns.x ~ ns.x %}" + end,
      "{% set ns = namespace(x=[1]) %}" + loop + "{% set ns.x = [ns.x, ns.x] %}" + end + "{{ ns.x }}",
      "{% set ns = namespace(x=[1]) %}" + loop + "{% set ns.x = [ns.x] %}" + end + "{{ ns.x }}",
      "{% set ns = namespace(x={}) %}" + loop + "{% set ns.x = {'a': ns.x, 'b': ns.x} %}" + end +
          "{{ ns.x|tojson }}",
      "{% set ns = namespace(x=[1]) %}" + loop + "{% set ns.x = ns.x + ns.x %}" + end,
      "{% set ns = namespace(x=[0]) %}" + loop + "{% set ns.x = ns.x + [namespace(y=ns)] %}" + end,
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m(x) %}{% for i in [1] %}{{ m([x]) }}{% endfor %}{% endmacro %}{{ m(1) }}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{{ 'x' * 1000000000000 }}",
      "{{ [1] * 1000000000000 }}",
      "{{ '%1000000000000d' % 5 }}",
      "{{ '{:>1000000000000}'.format(5) }}",
      "{{ '%.1000000000f' % 5.0 }}",
      "{{ 'x'.center(1000000000000) }}",
      "{{ 'x'|indent(1000000000000, true) }}",
      "{{ [1]|tojson(indent=1000000000000) }}",
      "{{ [1]|batch(1000000000000, 'x') }}",
      "{{ [1]|slice(1000000000000, 'x') }}",
      "{{ range(1000000000000) }}",
      "{{ 'a\tb'.expandtabs(1000000000000) }}",
      "{{ ('x' * 60000000).replace('x', 'y' * 60000000) }}",
      "{{ ('x' * 6000000).replace('', 'y' * 6000) }}",
      "{{ range(100000)|join('x' * 60000000) }}",
      loop + "{% set y = ('x' * 10000000).upper() %}" + end,
      loop + "{% set y = range(100000)|sort %}" + end,
      loop + "{% macro m() %}{{ m }}{% endmacro %}" + end + loop + loop + end + end,
      "{{ " + repeated("(", 100000),
      "{{ " + repeated("[", 100000) + repeated("]", 100000) + " }}",
      "{{ " + repeated("-", 100000) + "1 }}",
      "{{ " + repeated("not ", 100000) + "1 }}",
      "{{ 1" + repeated(" + 1", 100000) + " }}",
      "{{ 1" + repeated("|abs", 100000) + " }}",
      "{{ x" + repeated(".x", 100000) + " }}",
      "{{ 1" + repeated(" if 1", 100000) + " }}",
      "{{ 1" + repeated(" if 1 else 1", 100000) + " }}",
      repeated("{% if 1 %}", 100000),
      "{% set " + repeated("(", 100000) + "x" + repeated(")", 100000) + " = 1 %}",
      repeated("x", 2 << 20),
  };
  for (const std::string& source : kTemplates) {
    SCOPED_TRACE(source.substr(0, 200));
    const auto start = std::chrono::steady_clock::now();
    EXPECT_THROW(render(source, Json::object()), Error);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  }
}

// What a real conversation needs stays far from the bounds.
TEST(Jinja, RendersLongConversations) {
  Json messages = Json::array();
  for (int i = 0; i < 2000; ++i) {
    messages.push_back(Json{{"role", i % 2 ? "assistant" : "user"}, {"content", std::string(2000, 'a')}});
  }
  const std::string source = read_file(test_data("jinja/chatml_style.jinja"));
  const std::string text = render(source, Json{{"messages", messages}, {"add_generation_prompt", true}});
  EXPECT_GT(text.size(), 4'000'000U);
}

}  // namespace
}  // namespace bise
