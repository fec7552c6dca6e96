#include "text/jinja/operations.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/string_operations.h"

namespace bise::jinja {
namespace {

[[noreturn]] void unsupported(std::string_view op, const Value& left, const Value& right) {
  if (left.is_undefined()) throw Error("{}", left.undefined_message());
  if (right.is_undefined()) throw Error("{}", right.undefined_message());
  throw Error("unsupported operand type(s) for {}: '{}' and '{}'", op, left.type_name(), right.type_name());
}

std::int64_t floor_divide(std::int64_t a, std::int64_t b) {
  if (a == INT64_MIN && b == -1) throw Error("the result of // is beyond 64 bits");
  const std::int64_t quotient = a / b;
  return quotient - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
}

std::int64_t integer_power(std::int64_t base, std::int64_t exponent) {
  std::int64_t result = 1;
  for (bool done = exponent == 0; !done;) {
    bool overflow = false;
    if (exponent & 1) overflow = __builtin_mul_overflow(result, base, &result);
    exponent >>= 1;
    done = exponent == 0;
    if (!done) overflow = overflow || __builtin_mul_overflow(base, base, &base);
    if (overflow) throw Error("the result of ** is beyond 64 bits");
  }
  return result;
}

std::int64_t integer_arithmetic(std::string_view op, std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  bool overflow = false;
  if (op == "+") overflow = __builtin_add_overflow(a, b, &result);
  if (op == "-") overflow = __builtin_sub_overflow(a, b, &result);
  if (op == "*") overflow = __builtin_mul_overflow(a, b, &result);
  if (op == "**") result = integer_power(a, b);
  if (op == "//" || op == "%") {
    if (b == 0) throw Error("integer division or modulo by zero");
    const std::int64_t quotient = b == -1 && op == "%" ? 0 : floor_divide(a, b);
    result = op == "//" ? quotient : b == -1 ? 0 : a - quotient * b;
  }
  if (overflow) throw Error("the result of {} is beyond 64 bits", op);
  return result;
}

double float_arithmetic(std::string_view op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") {
    if (a == 0 && b < 0) throw Error("0.0 cannot be raised to a negative power");
    return std::pow(a, b);
  }
  if (b == 0) throw Error("division by zero");
  if (op == "/") return a / b;
  const double remainder = std::fmod(a, b);
  const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
  if (op == "%") return adjust ? remainder + b : remainder;
  return std::floor((a - remainder) / b) - (adjust ? 1 : 0);
}

Value repeated(Runtime& runtime, const Value& sequence, std::int64_t times) {
  const auto count = static_cast<std::size_t>(std::clamp<std::int64_t>(times, 0, INT64_C(1) << 32));
  if (sequence.is_text()) {
    const Text& text = sequence.as_text();
    if (text.empty()) return sequence;
    runtime.spend_text(text.size() * std::min(count, Runtime::kMaxOutput + 1));
    runtime.spend(8 * count);
    Text result;
    for (std::size_t i = 0; i < count; ++i) result.append(text);
    return sequence.is_markup() ? Value::markup(std::move(result)) : Value::text(std::move(result));
  }
  const auto& items = sequence.as_list().items;
  runtime.spend(64 * items.size() * count);
  std::vector<Value> result;
  for (std::size_t i = 0; !items.empty() && i < count; ++i)
    result.insert(result.end(), items.begin(), items.end());
  return sequence.as_list().is_tuple ? Value::tuple(std::move(result)) : Value::list(std::move(result));
}

Value joined(Runtime& runtime, const Value& left, const Value& right) {
  if (left.is_markup() || right.is_markup()) {
    Text result = as_markup(runtime, left);
    result.append(as_markup(runtime, right));
    runtime.spend_text(result.size());
    return Value::markup(std::move(result));
  }
  if (left.is_text()) {
    runtime.spend_text(left.as_text().size() + right.as_text().size());
    Text result = left.as_text();
    result.append(right.as_text());
    return Value::text(std::move(result));
  }
  std::vector<Value> items = left.as_list().items;
  const auto& more = right.as_list().items;
  runtime.spend(64 * (items.size() + more.size()));
  items.insert(items.end(), more.begin(), more.end());
  return left.as_list().is_tuple ? Value::tuple(std::move(items)) : Value::list(std::move(items));
}

}  // namespace

Value arithmetic(Runtime& runtime, std::string_view op, const Value& left, const Value& right) {
  if (left.is_number() && right.is_number()) {
    const bool trusted = left.trusted() && right.trusted();
    const bool whole = left.is_integral() && right.is_integral() && op != "/";
    if (whole && !(op == "**" && right.as_integer() < 0)) {
      return Value::integer(integer_arithmetic(op, left.as_integer(), right.as_integer()), trusted);
    }
    return Value::floating(float_arithmetic(op, left.as_double(), right.as_double()), trusted);
  }
  if (op == "%" && left.is_text()) return percent_format(runtime, left.as_text(), right);
  if (op == "+" && left.is_text() && right.is_text()) return joined(runtime, left, right);
  if (op == "+" && left.is_list() && right.is_list() && left.as_list().is_tuple == right.as_list().is_tuple) {
    return joined(runtime, left, right);
  }
  if (op == "*" && (left.is_text() || left.is_list()) && right.is_integral()) {
    return repeated(runtime, left, right.as_integer());
  }
  if (op == "*" && (right.is_text() || right.is_list()) && left.is_integral()) {
    return repeated(runtime, right, left.as_integer());
  }
  unsupported(op, left, right);
}

Value negated(const Value& value) {
  if (value.is_undefined()) throw Error("{}", value.undefined_message());
  if (!value.is_number()) throw Error("bad operand type for unary -: '{}'", value.type_name());
  if (!value.is_integral()) return Value::floating(-value.as_double(), value.trusted());
  return Value::integer(integer_arithmetic("-", 0, value.as_integer()), value.trusted());
}

bool contains(Runtime& runtime, const Value& container, const Value& item) {
  if (container.is_undefined()) return false;
  if (container.is_text()) {
    if (item.is_undefined()) throw Error("{}", item.undefined_message());
    if (!item.is_text())
      throw Error("'in <string>' requires string as left operand, not {}", item.type_name());
    runtime.spend(container.as_text().size());
    return container.as_text().bytes().find(item.as_text().bytes()) != std::string::npos;
  }
  if (container.is_dict()) return container.as_dict().find(item) != nullptr;
  if (container.is_list()) {
    runtime.spend(container.weight());
    const auto& items = container.as_list().items;
    return std::any_of(items.begin(), items.end(), [&](const Value& other) { return equal(other, item); });
  }
  throw Error("argument of type '{}' is not iterable", container.type_name());
}

bool compare(Runtime& runtime, std::string_view op, const Value& left, const Value& right) {
  if (op == "in") return contains(runtime, right, left);
  if (op == "not in") return !contains(runtime, right, left);
  runtime.spend(std::min(left.weight(), right.weight()));
  if (op == "==") return equal(left, right);
  if (op == "!=") return !equal(left, right);
  if (op == "<") return less(left, right);
  if (op == ">") return less(right, left);
  const bool unordered = left.is_number() && right.is_number() &&
                         (std::isnan(left.as_double()) || std::isnan(right.as_double()));
  if (unordered) return false;
  return op == "<=" ? !less(right, left) : !less(left, right);
}

std::shared_ptr<const List> items_of(Runtime& runtime, const Value& value) {
  List list;
  switch (value.kind()) {
    case Value::Kind::kList: return value.list_pointer();
    case Value::Kind::kUndefined: break;
    case Value::Kind::kDict:
      runtime.spend(64 * value.as_dict().entries().size());
      for (const auto& entry : value.as_dict().entries()) list.items.push_back(entry.first);
      break;
    case Value::Kind::kText: {
      const Text& text = value.as_text();
      runtime.spend(128 * text.size());
      for (std::size_t i = 0; i < text.size();) {
        const std::size_t end = i + character_length(text.bytes()[i]);
        list.items.push_back(Value::text(text.part(i, end)));
        i = end;
      }
      break;
    }
    default: throw Error("'{}' object is not iterable", value.type_name());
  }
  return Value::list(std::move(list.items)).list_pointer();
}

std::int64_t length_of(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined: return 0;
    case Value::Kind::kText: return static_cast<std::int64_t>(count_characters(value.as_text().bytes()));
    case Value::Kind::kList: return static_cast<std::int64_t>(value.as_list().items.size());
    case Value::Kind::kDict: return static_cast<std::int64_t>(value.as_dict().entries().size());
    case Value::Kind::kLoop: return static_cast<std::int64_t>(value.as_loop().items->items.size());
    default: throw Error("object of type '{}' has no len()", value.type_name());
  }
}

Value call(Runtime& runtime, const Value& callee, Arguments& arguments) {
  if (callee.kind() == Value::Kind::kCallable) return callee.as_callable().call(runtime, arguments);
  if (callee.kind() == Value::Kind::kLoop && callee.as_loop().recurse.call) {
    return callee.as_loop().recurse.call(runtime, arguments);
  }
  if (callee.is_undefined()) throw Error("{}", callee.undefined_message());
  throw Error("'{}' object is not callable", callee.type_name());
}

Value apply_filter(Runtime& runtime, std::string_view name, const Value& input, Arguments& arguments) {
  FilterFunction filter = find_filter(name);
  if (!filter) filter = find_sequence_filter(name);
  if (!filter) throw Error("no filter named '{}'", name);
  return filter(runtime, input, arguments);
}

bool apply_test(Runtime& runtime, std::string_view name, const Value& input, Arguments& arguments) {
  const TestFunction test = find_test(name);
  if (!test) throw Error("no test named '{}'", name);
  return test(runtime, input, arguments);
}

}  // namespace bise::jinja
