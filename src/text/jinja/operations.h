// What operators, subscripts, iteration and calls mean, apart from the syntax that asks for them.
#pragma once

#include <memory>
#include <optional>
#include <string_view>

#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace bise::jinja {

// + - * / // % **, as in Python. Throws Error on operands of the wrong type, division by zero and integers
// beyond 64 bits.
Value arithmetic(Runtime& runtime, std::string_view op, const Value& left, const Value& right);
// -value
Value negated(const Value& value);
// == != < <= > >= in "not in"
bool compare(Runtime& runtime, std::string_view op, const Value& left, const Value& right);
bool contains(Runtime& runtime, const Value& container, const Value& item);

// The items that a for loop goes through: of a list, a dict's keys, a string's characters; none for an
// undefined value. Throws Error when the value cannot be iterated over.
std::shared_ptr<const List> items_of(Runtime& runtime, const Value& value);
// len(value)
std::int64_t length_of(const Value& value);

// object.name: the attribute, else the item; undefined when there is neither.
Value attribute_of(Runtime& runtime, const Value& object, const Value& name);
// object[index]: the item, else the attribute.
Value item_of(Runtime& runtime, const Value& object, const Value& index);
// object[start:stop:step]; undefined or None stands for a bound that is not given.
Value slice_of(Runtime& runtime, const Value& object, const Value& start, const Value& stop,
               const Value& step);

Value call(Runtime& runtime, const Value& callee, Arguments& arguments);

// The method `name` bound to `object`, if its type has one. Methods that would change the object are refused
// when called, as in jinja2's ImmutableSandboxedEnvironment. (methods.cpp, string_methods.cpp)
std::optional<Value> find_method(const Value& object, std::string_view name);
std::optional<Value> find_string_method(const Value& text, std::string_view name);

using FilterFunction = Value (*)(Runtime&, const Value& input, Arguments&);
using TestFunction = bool (*)(Runtime&, const Value& input, Arguments&);
// Null when there is none of that name. (filters.cpp, sequence_filters.cpp, tests.cpp)
FilterFunction find_filter(std::string_view name);
FilterFunction find_sequence_filter(std::string_view name);
TestFunction find_test(std::string_view name);
// The same, with an Error for an unknown name.
Value apply_filter(Runtime& runtime, std::string_view name, const Value& input, Arguments& arguments);
bool apply_test(Runtime& runtime, std::string_view name, const Value& input, Arguments& arguments);

// format % values, and format.format(...), with Python's conversions. (string_format.cpp)
Value percent_format(Runtime& runtime, const Text& format, const Value& values);
Value brace_format(Runtime& runtime, const Text& format, const Arguments& arguments);

// range, dict, namespace, raise_exception, strftime_now. (globals.cpp)
std::shared_ptr<Scope> make_globals();

}  // namespace bise::jinja
