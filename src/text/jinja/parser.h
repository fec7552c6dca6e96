// Parses the tokens of a template into its syntax tree, with Jinja 2's grammar.
#pragma once

#include <string_view>

#include "text/jinja/ast.h"

namespace bise::jinja {

struct SyntaxTree {
  Block body;
  // Every for and set statement, wherever it stands: chat_template.cpp looks at what they read.
  std::vector<const For*> loops;
  std::vector<const Set*> assignments;
};

// Throws Error with the line on a syntax error, an unsupported tag (include, import, extends, block, ...) or
// nesting deeper than kMaxSyntaxDepth.
SyntaxTree parse(std::string_view source);

inline constexpr int kMaxSyntaxDepth = 1000;

}  // namespace bise::jinja
