// A Jinja 2 template as transformers renders chat templates: the sandboxed, immutable environment with
// trim_blocks, lstrip_blocks, loop controls, {% generation %}, raise_exception, strftime_now and its own
// tojson. The joined text of a rendering equals jinja2's; beyond that, each segment says whether the template
// wrote it (trusted) or the data did.
//
// Differences from jinja2: integers are 64 bits; filters that jinja2 computes lazily give lists; upper, lower
// and their like map one character to one ("ß" stays "ß"); include, import, extends, block and autoescape are
// syntax errors, and so is an unknown tag; an unknown filter or test is an error when it is reached.
//
// A Template never changes once parsed: it may be rendered on any number of threads at once.
#pragma once

#include <ctime>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/parser.h"
#include "text/jinja/value.h"
#include "text/segment.h"

namespace bise::jinja {

class Template {
 public:
  // `name` is what errors call the template. Throws Error naming it and the line.
  Template(std::string_view source, std::string name);

  // Throws Error, naming the line, for whatever the template raises or cannot do, and when the rendering
  // takes more work, output or depth than Runtime allows. `now` is the time that strftime_now formats.
  std::vector<TextSegment> render(const std::vector<std::pair<std::string, Value>>& variables,
                                  std::time_t now) const;

  const SyntaxTree& tree() const { return tree_; }

 private:
  std::string name_;
  SyntaxTree tree_;
};

}  // namespace bise::jinja
