// What may follow "is".
#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/operations.h"

namespace bise::jinja {
namespace {

using Kind = Value::Kind;

// Tests without arguments.
template <bool (*holds)(const Value&)>
bool plain(Runtime&, const Value& input, Arguments& arguments) {
  arguments.bind("test", {});
  return holds(input);
}

bool is_defined(const Value& value) {
  return !value.is_undefined();
}
bool is_undefined(const Value& value) {
  return value.is_undefined();
}
bool is_none(const Value& value) {
  return value.is_none();
}
bool is_boolean(const Value& value) {
  return value.kind() == Kind::kBool;
}
bool is_true(const Value& value) {
  return is_boolean(value) && value.truth();
}
bool is_false(const Value& value) {
  return is_boolean(value) && !value.truth();
}
bool is_integer(const Value& value) {
  return value.kind() == Kind::kInt;
}
bool is_float(const Value& value) {
  return value.kind() == Kind::kFloat;
}
bool is_number(const Value& value) {
  return value.is_number();
}
bool is_string(const Value& value) {
  return value.is_text();
}
bool is_mapping(const Value& value) {
  return value.is_dict();
}
bool is_iterable(const Value& value) {
  return value.is_text() || value.is_list() || value.is_dict() || value.is_undefined() ||
         value.kind() == Kind::kLoop;
}
// Whatever has a length and items, as Jinja has it: strings and mappings too.
bool is_sequence(const Value& value) {
  return value.is_text() || value.is_list() || value.is_dict() || value.is_undefined();
}
bool is_callable(const Value& value) {
  return value.is_undefined() || value.kind() == Kind::kCallable || value.kind() == Kind::kLoop;
}
bool is_escaped(const Value& value) {
  return value.is_markup();
}

// value % by == 0 or 1
bool leaves(Runtime& runtime, const Value& value, const Value& by, std::int64_t remainder) {
  return equal(arithmetic(runtime, "%", value, by), Value::integer(remainder));
}
bool is_odd(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("odd", {});
  return leaves(runtime, input, Value::integer(2), 1);
}
bool is_even(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("even", {});
  return leaves(runtime, input, Value::integer(2), 0);
}
bool is_divisible(Runtime& runtime, const Value& input, Arguments& arguments) {
  return leaves(runtime, input, arguments.bind("divisibleby", {"num"}, 1)[0], 0);
}

// str.islower and isupper: at least one letter of that case and none of the other.
bool has_case(const Value& value, Property wanted, Property unwanted) {
  const std::string text = to_text(value).bytes();
  bool found = false;
  for (std::size_t i = 0; i < text.size(); i += character_length(text[i])) {
    const std::uint32_t c = character_at(text, i);
    if (has_property(c, unwanted)) return false;
    found = found || has_property(c, wanted);
  }
  return found;
}
bool is_lower(const Value& value) {
  return has_case(value, Property::kLower, Property::kUpper);
}
bool is_upper(const Value& value) {
  return has_case(value, Property::kUpper, Property::kLower);
}

template <const char* op>
bool compared(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind(op, {"other"}, 1);
  return compare(runtime, op, input, given[0]);
}

bool is_same(Runtime&, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("sameas", {"other"}, 1);
  if (input.is_list() && given[0].is_list()) return &input.as_list() == &given[0].as_list();
  if (input.is_dict() && given[0].is_dict()) return &input.as_dict() == &given[0].as_dict();
  return input.kind() == given[0].kind() && equal(input, given[0]);
}

bool is_filter(Runtime&, const Value& input, Arguments&) {
  const std::string name = to_text(input).bytes();
  return find_filter(name) || find_sequence_filter(name);
}

bool is_test(Runtime&, const Value& input, Arguments&) {
  return find_test(to_text(input).bytes()) != nullptr;
}

constexpr char kEqual[] = "==", kUnequal[] = "!=", kLess[] = "<", kLessEqual[] = "<=", kGreater[] = ">",
               kGreaterEqual[] = ">=", kIn[] = "in";

}  // namespace

TestFunction find_test(std::string_view name) {
  static const std::unordered_map<std::string_view, TestFunction> kTests = {
      {"defined", plain<is_defined>},
      {"undefined", plain<is_undefined>},
      {"none", plain<is_none>},
      {"boolean", plain<is_boolean>},
      {"true", plain<is_true>},
      {"false", plain<is_false>},
      {"integer", plain<is_integer>},
      {"float", plain<is_float>},
      {"number", plain<is_number>},
      {"string", plain<is_string>},
      {"mapping", plain<is_mapping>},
      {"iterable", plain<is_iterable>},
      {"sequence", plain<is_sequence>},
      {"callable", plain<is_callable>},
      {"odd", is_odd},
      {"even", is_even},
      {"lower", plain<is_lower>},
      {"upper", plain<is_upper>},
      {"escaped", plain<is_escaped>},
      {"divisibleby", is_divisible},
      {"sameas", is_same},
      {"filter", is_filter},
      {"test", is_test},
      {"eq", compared<kEqual>},
      {"equalto", compared<kEqual>},
      {"==", compared<kEqual>},
      {"ne", compared<kUnequal>},
      {"!=", compared<kUnequal>},
      {"lt", compared<kLess>},
      {"lessthan", compared<kLess>},
      {"<", compared<kLess>},
      {"le", compared<kLessEqual>},
      {"<=", compared<kLessEqual>},
      {"gt", compared<kGreater>},
      {"greaterthan", compared<kGreater>},
      {">", compared<kGreater>},
      {"ge", compared<kGreaterEqual>},
      {">=", compared<kGreaterEqual>},
      {"in", compared<kIn>},
  };
  const auto found = kTests.find(name);
  return found == kTests.end() ? nullptr : found->second;
}

}  // namespace bise::jinja
