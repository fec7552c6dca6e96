// Evaluation of expressions.
#include "base/error.h"
#include "text/jinja/ast.h"
#include "text/jinja/operations.h"
#include "text/jinja/runtime.h"

namespace bise::jinja {
namespace {

Arguments evaluated(Runtime& runtime, const CallArguments& arguments) {
  Arguments result;
  for (const auto& expression : arguments.positional)
    result.positional.push_back(expression->evaluate(runtime));
  for (const auto& [name, expression] : arguments.keyword) {
    result.keyword.emplace_back(name, expression->evaluate(runtime));
  }
  if (arguments.more_positional) {
    const auto more = items_of(runtime, arguments.more_positional->evaluate(runtime));
    runtime.spend(64 * more->items.size());
    result.positional.insert(result.positional.end(), more->items.begin(), more->items.end());
  }
  if (arguments.more_keyword) {
    const Value more = arguments.more_keyword->evaluate(runtime);
    if (!more.is_dict()) throw Error("argument after ** must be a mapping, not {}", more.type_name());
    runtime.spend(64 * more.as_dict().entries().size());
    for (const auto& [name, value] : more.as_dict().entries()) {
      if (!name.is_text()) throw Error("keywords must be strings");
      result.keyword.emplace_back(name.as_text().bytes(), value);
    }
  }
  return result;
}

Value evaluated_or_absent(Runtime& runtime, const ExpressionPtr& expression) {
  return expression ? expression->evaluate(runtime) : Value();
}

}  // namespace

Value Expression::evaluate(Runtime& runtime) const {
  const Step step(runtime, line);
  return value(runtime);
}

Value Name::value(Runtime& runtime) const {
  return runtime.lookup(name);
}

Value ListDisplay::value(Runtime& runtime) const {
  std::vector<Value> values;
  values.reserve(items.size());
  for (const auto& item : items) values.push_back(item->evaluate(runtime));
  return is_tuple ? Value::tuple(std::move(values)) : Value::list(std::move(values));
}

Value DictDisplay::value(Runtime& runtime) const {
  Dict dict;
  for (const auto& [key, item] : items) {
    const Value key_value = key->evaluate(runtime);
    dict.set(key_value, item->evaluate(runtime));
  }
  return Value::dict(std::move(dict));
}

Value Unary::value(Runtime& runtime) const {
  const Value on = operand->evaluate(runtime);
  if (op == Operator::kNot) return Value::boolean(!on.truth());
  const Value opposite = negated(on);
  return op == Operator::kNegate ? opposite : negated(opposite);
}

Value Binary::value(Runtime& runtime) const {
  const Value a = left->evaluate(runtime);
  if (op == "and") return a.truth() ? right->evaluate(runtime) : a;
  if (op == "or") return a.truth() ? a : right->evaluate(runtime);
  return arithmetic(runtime, op, a, right->evaluate(runtime));
}

Value Comparison::value(Runtime& runtime) const {
  Value left = first->evaluate(runtime);
  for (const auto& [op, expression] : rest) {
    Value right = expression->evaluate(runtime);
    if (!compare(runtime, op, left, right)) return Value::boolean(false);
    left = std::move(right);
  }
  return Value::boolean(true);
}

Value Concatenation::value(Runtime& runtime) const {
  Text text;
  for (const auto& part : parts) {
    const Value value = part->evaluate(runtime);
    runtime.spend(value.weight());
    text.append(to_text(value));
    runtime.spend_text(text.size());
  }
  return Value::text(std::move(text));
}

Value Conditional::value(Runtime& runtime) const {
  if (test->evaluate(runtime).truth()) return then->evaluate(runtime);
  if (otherwise) return otherwise->evaluate(runtime);
  return Value::undefined("the inline if-expression evaluated to false and no else section was defined");
}

Value Subscript::value(Runtime& runtime) const {
  const Value of = object->evaluate(runtime);
  const Value at = index->evaluate(runtime);
  return is_attribute ? attribute_of(runtime, of, at) : item_of(runtime, of, at);
}

Value Slice::value(Runtime& runtime) const {
  const Value of = object->evaluate(runtime);
  const Value from = evaluated_or_absent(runtime, start);
  const Value to = evaluated_or_absent(runtime, stop);
  return slice_of(runtime, of, from, to, evaluated_or_absent(runtime, step));
}

Value Call::value(Runtime& runtime) const {
  return call(runtime, nullptr);
}

Value Call::call(Runtime& runtime, const Value* caller) const {
  const Value function = callee->evaluate(runtime);
  Arguments given = evaluated(runtime, arguments);
  if (caller) given.keyword.emplace_back("caller", *caller);
  runtime.line = line;
  return jinja::call(runtime, function, given);
}

Value Filter::value(Runtime& runtime) const {
  return apply(runtime, input->evaluate(runtime));
}

Value Filter::apply(Runtime& runtime, const Value& to) const {
  Arguments given = evaluated(runtime, arguments);
  runtime.line = line;
  return apply_filter(runtime, name, to, given);
}

Value Test::value(Runtime& runtime) const {
  const Value of = input->evaluate(runtime);
  Arguments given = evaluated(runtime, arguments);
  runtime.line = line;
  return Value::boolean(apply_test(runtime, name, of, given) != negated);
}

}  // namespace bise::jinja
