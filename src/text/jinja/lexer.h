// Splits a template into tokens, applying Jinja's whitespace rules as transformers sets them: trim_blocks,
// lstrip_blocks, a single newline at the end of the file dropped.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace bise::jinja {

struct Token {
  enum class Kind {
    kData,           // text outside tags
    kVariableBegin,  // {{
    kVariableEnd,    // }}
    kBlockBegin,     // {%
    kBlockEnd,       // %}
    kName,
    kString,  // text holds the string with its escapes resolved
    kInteger,
    kFloat,
    kOperator,
    kEnd,
  };
  Kind kind;
  std::string text;
  int line;

  bool is(Kind other, std::string_view with) const { return kind == other && text == with; }
  bool is_operator(std::string_view symbol) const { return is(Kind::kOperator, symbol); }
  bool is_name(std::string_view name) const { return is(Kind::kName, name); }
};

// All tokens of `source`, ended by one kEnd. Comments are dropped, raw blocks become data. Throws Error with
// the line on invalid UTF-8, unclosed tags and strings, unbalanced brackets and unknown characters.
std::vector<Token> tokenize(std::string_view source);

}  // namespace bise::jinja
