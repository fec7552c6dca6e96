#include "text/jinja/runtime.h"

#include <algorithm>

#include "base/error.h"

namespace bise::jinja {

Runtime::~Runtime() {
  for (const auto& object : namespaces_) object->attributes.clear();
  for (const auto& scope_of_macro : macro_scopes_) scope_of_macro->variables.clear();
}

void Runtime::spend(std::size_t units) {
  work_ += std::min(units, kMaxWork);
  if (work_ > kMaxWork) throw Error("the template does more work than a rendering may take");
}

void Runtime::spend_text(std::size_t bytes) {
  if (bytes > kMaxOutput) throw Error("the template makes a text of more than {} bytes", kMaxOutput);
  spend(bytes + 32);
}

Value Runtime::lookup(std::string_view name) const {
  for (const Scope* at = scope.get(); at != nullptr; at = at->outer.get()) {
    if (const auto found = at->variables.find(name); found != at->variables.end()) return found->second;
  }
  return Value::undefined(fmt::format("'{}' is undefined", name));
}

Value Runtime::new_namespace(std::shared_ptr<Namespace> object) {
  spend(300);
  namespaces_.push_back(object);
  return Value::name_space(std::move(object));
}

void Runtime::write(const Text& text) {
  spend(text.size());
  if (output->size() + text.size() > kMaxOutput)
    throw Error("the template writes more than {} bytes", kMaxOutput);
  output->append(text);
}

Step::Step(Runtime& runtime, int line) : runtime_(runtime) {
  runtime_.line = line;
  if (runtime_.evaluation_depth_ >= Runtime::kMaxEvaluationDepth) {
    throw Error("the template's calls are nested too deeply");
  }
  runtime_.spend(20);
  ++runtime_.evaluation_depth_;
}

CallLevel::CallLevel(Runtime& runtime) : runtime_(runtime) {
  if (runtime_.call_depth_ >= Runtime::kMaxCallDepth) {
    throw Error("the template's calls are nested deeper than {} levels", Runtime::kMaxCallDepth);
  }
  ++runtime_.call_depth_;
}

Arguments::Bound Arguments::bind(std::string_view function, std::vector<std::string_view> names,
                                 std::size_t required) const {
  Bound bound;
  bound.function_ = function;
  bound.names_ = std::move(names);
  bound.given_.resize(bound.names_.size(), nullptr);
  if (positional.size() > bound.names_.size()) {
    throw Error("{}() takes at most {} arguments ({} given)", function, bound.names_.size(),
                positional.size());
  }
  for (std::size_t i = 0; i < positional.size(); ++i) bound.given_[i] = &positional[i];
  for (const auto& [name, value] : keyword) {
    const auto found = std::find(bound.names_.begin(), bound.names_.end(), name);
    if (found == bound.names_.end())
      throw Error("{}() got an unexpected keyword argument '{}'", function, name);
    const Value*& slot = bound.given_[static_cast<std::size_t>(found - bound.names_.begin())];
    if (slot) throw Error("{}() got multiple values for argument '{}'", function, name);
    slot = &value;
  }
  for (std::size_t i = 0; i < required; ++i) {
    if (!bound.given_[i]) throw Error("{}() missing the argument '{}'", function, bound.names_[i]);
  }
  return bound;
}

const Value& Arguments::Bound::operator[](std::size_t index) const {
  static const Value kAbsent;
  return given_[index] ? *given_[index] : kAbsent;
}

bool Arguments::Bound::flag(std::size_t index, bool fallback) const {
  return given_[index] ? given_[index]->truth() : fallback;
}

std::int64_t Arguments::Bound::integer(std::size_t index, std::int64_t fallback) const {
  if (!given_[index]) return fallback;
  if (!given_[index]->is_integral()) {
    throw Error("{}(): argument '{}' must be an integer, not {}", function_, names_[index],
                given_[index]->type_name());
  }
  return given_[index]->as_integer();
}

const Text& Arguments::Bound::text(std::size_t index) const {
  const Value& value = (*this)[index];
  if (value.is_undefined()) throw Error("{}", value.undefined_message());
  if (!value.is_text()) {
    throw Error("{}(): argument '{}' must be str, not {}", function_, names_[index], value.type_name());
  }
  return value.as_text();
}

}  // namespace bise::jinja
