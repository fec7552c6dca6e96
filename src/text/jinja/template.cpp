#include "text/jinja/template.h"

#include "base/error.h"
#include "text/jinja/operations.h"
#include "text/jinja/runtime.h"

namespace bise::jinja {
namespace {

// A template is a page or two; this bounds the time to parse a hostile one.
constexpr std::size_t kMaxSource = std::size_t{1} << 20;

SyntaxTree parse_named(std::string_view source, const std::string& name) {
  if (source.size() > kMaxSource) throw Error("the template has more than {} bytes", kMaxSource).at(name);
  try {
    return parse(source);
  } catch (const Error& error) {
    rethrow_inside(error, name);
  }
}

}  // namespace

Template::Template(std::string_view source, std::string name)
    : name_(std::move(name)), tree_(parse_named(source, name_)) {}

std::vector<TextSegment> Template::render(const std::vector<std::pair<std::string, Value>>& variables,
                                          std::time_t now) const {
  static const std::shared_ptr<Scope> kGlobals = make_globals();
  auto context = std::make_shared<Scope>(Scope{{}, kGlobals});
  for (const auto& [name, value] : variables) context->variables.insert_or_assign(name, value);
  Text output;
  Runtime runtime(std::make_shared<Scope>(Scope{{}, std::move(context)}), now);
  runtime.output = &output;
  try {
    for (const auto& statement : tree_.body) statement->execute(runtime);
  } catch (const Error& error) {
    throw error.at(fmt::format("{}: line {}", name_, runtime.line));
  }
  return output.segments();
}

}  // namespace bise::jinja
