// Execution of statements.
#include <algorithm>

#include "base/error.h"
#include "text/jinja/ast.h"
#include "text/jinja/operations.h"
#include "text/jinja/runtime.h"

namespace bise::jinja {
namespace {

Flow run_block(Runtime& runtime, const Block& block) {
  for (const auto& statement : block) {
    const Flow flow = statement->execute(runtime);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

void assign(Runtime& runtime, const Target& target, const Value& value) {
  if (!target.parts.empty()) {
    const auto values = items_of(runtime, value);
    if (values->items.size() != target.parts.size()) {
      throw Error("cannot unpack {} values into {} names", values->items.size(), target.parts.size());
    }
    for (std::size_t i = 0; i < target.parts.size(); ++i) assign(runtime, target.parts[i], values->items[i]);
  } else if (target.attribute.empty()) {
    runtime.assign(target.name, value);
  } else {
    const Value object = runtime.lookup(target.name);
    if (object.kind() != Value::Kind::kNamespace)
      throw Error("cannot assign attribute on non-namespace object");
    if (target.attribute[0] == '_') {
      throw Error("cannot store the underscore-prefixed attribute '{}' on a namespace", target.attribute);
    }
    runtime.spend(64);
    object.as_namespace().attributes.insert_or_assign(target.attribute, value);
  }
}

// A macro or the body of a call block as a value: a function of its arguments that gives the text written.
Value macro_value(Runtime& runtime, const std::string& name, const MacroParameters& parameters,
                  const Block& body) {
  runtime.spend(500);
  runtime.keep(runtime.scope);
  return Value::callable(name, [&parameters, &body, name, outer = runtime.scope](Runtime& at,
                                                                                 Arguments& given) {
    const CallLevel level(at);
    const ScopeSwitch inside(at, std::make_shared<Scope>(Scope{{}, outer}));
    const std::size_t count = parameters.names.size();
    std::vector<bool> set(count, false);
    std::vector<Value> varargs;
    Dict kwargs;
    for (std::size_t i = 0; i < given.positional.size(); ++i) {
      if (i >= count) {
        varargs.push_back(given.positional[i]);
        continue;
      }
      at.assign(parameters.names[i], given.positional[i]);
      set[i] = true;
    }
    if (!varargs.empty() && !parameters.takes_varargs) {
      throw Error("macro '{}' takes not more than {} argument(s)", name, count);
    }
    if (parameters.takes_caller) at.assign("caller", Value::undefined("No caller defined"));
    for (const auto& [keyword, value] : given.keyword) {
      const auto found = std::find(parameters.names.begin(), parameters.names.end(), keyword);
      if (found != parameters.names.end()) {
        const auto index = static_cast<std::size_t>(found - parameters.names.begin());
        if (set[index]) throw Error("macro '{}' got multiple values for argument '{}'", name, keyword);
        at.assign(keyword, value);
        set[index] = true;
      } else if (keyword == "caller" && parameters.takes_caller) {
        at.assign(keyword, value);
      } else if (parameters.takes_kwargs) {
        kwargs.set(Value::text(keyword, true), value);
      } else {
        throw Error("macro '{}' takes no keyword argument '{}'", name, keyword);
      }
    }
    const std::size_t first_default = count - parameters.defaults.size();
    for (std::size_t i = 0; i < count; ++i) {
      if (set[i]) continue;
      const std::string& parameter = parameters.names[i];
      at.assign(parameter, i >= first_default
                               ? parameters.defaults[i - first_default]->evaluate(at)
                               : Value::undefined(fmt::format("parameter '{}' was not provided", parameter)));
    }
    if (parameters.takes_varargs) at.assign("varargs", Value::tuple(std::move(varargs)));
    if (parameters.takes_kwargs) at.assign("kwargs", Value::dict(std::move(kwargs)));
    Capture capture(at);
    run_block(at, body);
    return Value::text(std::move(capture.text));
  });
}

Value filtered(Runtime& runtime, const std::vector<std::unique_ptr<const Filter>>& filters, Text text) {
  Value value = Value::text(std::move(text));
  for (const auto& filter : filters) value = filter->apply(runtime, value);
  return value;
}

void write_value(Runtime& runtime, const Value& value) {
  if (value.is_text()) {
    runtime.write(value.as_text());
  } else {
    runtime.spend(value.weight());
    runtime.write(to_text(value));
  }
}

}  // namespace

Flow Statement::execute(Runtime& runtime) const {
  const Step step(runtime, line);
  return run(runtime);
}

Flow Data::run(Runtime& runtime) const {
  runtime.write(content);
  return Flow::kNext;
}

Flow Output::run(Runtime& runtime) const {
  for (const auto& expression : expressions) write_value(runtime, expression->evaluate(runtime));
  return Flow::kNext;
}

Flow If::run(Runtime& runtime) const {
  for (const auto& [test, body] : branches) {
    if (test->evaluate(runtime).truth()) return run_block(runtime, body);
  }
  return run_block(runtime, otherwise);
}

Flow For::run(Runtime& runtime) const {
  iterate(runtime, items->evaluate(runtime), 0);
  return Flow::kNext;
}

std::vector<Value> For::chosen_items(Runtime& runtime, const Value& over) const {
  const auto all = items_of(runtime, over);
  std::vector<Value> chosen;
  for (const Value& item : all->items) {
    const ScopeSwitch inside(runtime);
    assign(runtime, target, item);
    if (condition->evaluate(runtime).truth()) chosen.push_back(item);
  }
  return chosen;
}

void For::iterate(Runtime& runtime, const Value& over, int nesting) const {
  const CallLevel level(runtime);
  const auto loop = std::make_shared<Loop>();
  loop->items = condition ? Value::list(chosen_items(runtime, over)).list_pointer() : items_of(runtime, over);
  loop->nesting = nesting;
  if (recursive) {
    loop->recurse.name = "loop";
    loop->recurse.call = [this, nesting, outer = runtime.scope](Runtime& at, Arguments& given) {
      const Value children = given.bind("loop", {"iterable"}, 1)[0];
      const ScopeSwitch outside(at, outer);
      Capture capture(at);
      iterate(at, children, nesting + 1);
      return Value::text(std::move(capture.text));
    };
  }
  for (; loop->index < loop->items->items.size(); ++loop->index) {
    const ScopeSwitch inside(runtime);
    runtime.assign("loop", Value::loop(loop));
    assign(runtime, target, loop->items->items[loop->index]);
    if (run_block(runtime, body) == Flow::kBreak) break;
  }
  loop->last_checked.clear();
  if (loop->items->items.empty()) {
    const ScopeSwitch inside(runtime);
    run_block(runtime, otherwise);
  }
}

Flow Set::run(Runtime& runtime) const {
  if (value) {
    assign(runtime, target, value->evaluate(runtime));
    return Flow::kNext;
  }
  Flow flow = Flow::kNext;
  Text text;
  {
    const ScopeSwitch inside(runtime);
    Capture capture(runtime);
    flow = run_block(runtime, body);
    text = std::move(capture.text);
  }
  assign(runtime, target, filtered(runtime, filters, std::move(text)));
  return flow;
}

Flow Macro::run(Runtime& runtime) const {
  runtime.assign(name, macro_value(runtime, name, parameters, body));
  return Flow::kNext;
}

Flow CallBlock::run(Runtime& runtime) const {
  const Value caller = macro_value(runtime, "caller", parameters, body);
  write_value(runtime, call->call(runtime, &caller));
  return Flow::kNext;
}

Flow FilterBlock::run(Runtime& runtime) const {
  Flow flow = Flow::kNext;
  Text text;
  {
    const ScopeSwitch inside(runtime);
    Capture capture(runtime);
    flow = run_block(runtime, body);
    text = std::move(capture.text);
  }
  write_value(runtime, filtered(runtime, filters, std::move(text)));
  return flow;
}

Flow With::run(Runtime& runtime) const {
  std::vector<Value> evaluated;
  for (const auto& entry : values) evaluated.push_back(entry.second->evaluate(runtime));
  const ScopeSwitch inside(runtime);
  for (std::size_t i = 0; i < values.size(); ++i) assign(runtime, values[i].first, evaluated[i]);
  return run_block(runtime, body);
}

}  // namespace bise::jinja
