// Python's two ways to format: "%s: %d" % values and "{}: {:.2f}".format(values).
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/operations.h"
#include "text/jinja/string_operations.h"

namespace bise::jinja {
namespace {

struct Spec {
  Text fill = Text(" ", true);
  char align = '\0';  // < > ^ =; none given
  char sign = '-';    // - + or a space
  bool alternate = false;
  bool comma = false;
  std::int64_t width = 0;
  std::int64_t precision = -1;
  char type = '\0';
};

constexpr std::int64_t kMaxPrecision = 1000;

std::int64_t read_number(std::string_view text, std::size_t& i) {
  std::int64_t number = 0;
  while (i < text.size() && text[i] >= '0' && text[i] <= '9') {
    number = std::min<std::int64_t>(number * 10 + (text[i] - '0'), INT64_C(1) << 32);
    ++i;
  }
  return number;
}

void group_thousands(std::string& digits) {
  std::size_t end = digits.find_first_not_of("0123456789");
  if (end == std::string::npos) end = digits.size();
  for (std::size_t i = end; i > 3; i -= 3) digits.insert(i - 3, 1, ',');
}

std::string integer_digits(std::uint64_t magnitude, const Spec& spec) {
  switch (spec.type) {
    case 'x': return fmt::format("{}{:x}", spec.alternate ? "0x" : "", magnitude);
    case 'X': return fmt::format("{}{:X}", spec.alternate ? "0X" : "", magnitude);
    case 'o': return fmt::format("{}{:o}", spec.alternate ? "0o" : "", magnitude);
    case 'b': return fmt::format("{}{:b}", spec.alternate ? "0b" : "", magnitude);
    default: return fmt::format("{}", magnitude);
  }
}

std::string float_digits(double magnitude, const Spec& spec) {
  if (std::isnan(magnitude)) return "nan";
  if (std::isinf(magnitude)) return "inf";
  if (spec.precision > kMaxPrecision) throw Error("precision too big");
  const int precision = spec.precision < 0 ? 6 : static_cast<int>(spec.precision);
  switch (spec.type) {
    case 'e': return fmt::format("{:.{}e}", magnitude, precision);
    case 'E': return fmt::format("{:.{}E}", magnitude, precision);
    case 'g': return fmt::format("{:.{}g}", magnitude, std::max(precision, 1));
    case 'G': return fmt::format("{:.{}G}", magnitude, std::max(precision, 1));
    case '%': return fmt::format("{:.{}f}%", magnitude * 100, precision);
    case '\0':
      if (spec.precision < 0) return repr(magnitude);
      return fmt::format("{:.{}g}", magnitude, std::max(precision, 1));
    default: return fmt::format("{:.{}f}", magnitude, precision);
  }
}

Text format_number(Runtime& runtime, const Value& value, const Spec& spec) {
  const bool as_float =
      !value.is_integral() || std::string_view("fFeEgG%").find(spec.type) != std::string_view::npos;
  const bool negative = as_float ? std::signbit(value.as_double()) : value.as_integer() < 0;
  std::string digits;
  if (as_float) {
    digits = float_digits(std::abs(value.as_double()), spec);
  } else {
    const auto number = static_cast<std::uint64_t>(value.as_integer());
    digits = integer_digits(negative ? 0 - number : number, spec);
  }
  if (spec.comma) group_thousands(digits);
  const std::string sign(negative || spec.sign != '-' ? 1 : 0, negative ? '-' : spec.sign);
  if (spec.align != '=') {
    const Alignment side = spec.align == '<'   ? Alignment::kLeft
                           : spec.align == '^' ? Alignment::kCenter
                                               : Alignment::kRight;
    return padded(runtime, Text(sign + digits, value.trusted()), spec.width, spec.fill, side);
  }
  Text result(sign, value.trusted());
  result.append(padded(runtime, Text(digits, value.trusted()),
                       spec.width - static_cast<std::int64_t>(sign.size()), spec.fill, Alignment::kRight));
  return result;
}

Text format_text(Runtime& runtime, Text text, const Spec& spec) {
  if (spec.precision >= 0)
    text = text.part(0, byte_offset(text.bytes(), static_cast<std::size_t>(spec.precision)));
  if (spec.align == '^') {
    // format centres with the odd space to the right, unlike str.center
    const auto length = static_cast<std::int64_t>(count_characters(text.bytes()));
    const std::int64_t left = std::max<std::int64_t>(0, spec.width - length) / 2;
    text = padded(runtime, text, length + left, spec.fill, Alignment::kRight);
  }
  return padded(runtime, text, spec.width, spec.fill,
                spec.align == '>' ? Alignment::kRight : Alignment::kLeft);
}

Spec parse_spec(const Text& text) {
  Spec spec;
  const std::string& s = text.bytes();
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  std::size_t i = 0;
  const std::size_t first = s.empty() ? 0 : character_length(s[0]);
  if (first < s.size() && is_align(s[first])) {
    spec.fill = text.part(0, first);
    spec.align = s[first];
    i = first + 1;
  } else if (!s.empty() && is_align(s[0])) {
    spec.align = s[i++];
  }
  if (i < s.size() && (s[i] == '+' || s[i] == '-' || s[i] == ' ')) spec.sign = s[i++];
  if (i < s.size() && s[i] == '#') spec.alternate = s[i++] != 0;
  if (i < s.size() && s[i] == '0' && !spec.align) {
    spec.fill = Text("0", true);
    spec.align = '=';
  }
  spec.width = read_number(s, i);
  if (i < s.size() && s[i] == ',') spec.comma = s[i++] != 0;
  if (i < s.size() && s[i] == '.') spec.precision = read_number(s, ++i);
  if (i < s.size()) spec.type = s[i++];
  if (i != s.size() ||
      std::string_view(std::string_view("sdfFeEgGxXob%\0", 14)).find(spec.type) == std::string_view::npos) {
    throw Error("invalid format specifier '{}'", s);
  }
  return spec;
}

Text formatted(Runtime& runtime, const Value& value, const Spec& spec) {
  runtime.spend(value.weight());
  if (value.is_number() && spec.type != 's' && !(value.kind() == Value::Kind::kBool && spec.type == '\0')) {
    if (!value.is_integral() && std::string_view("dxXob").find(spec.type) != std::string_view::npos) {
      throw Error("unknown format code '{}' for object of type 'float'", spec.type);
    }
    return format_number(runtime, value, spec);
  }
  if (spec.type != '\0' && spec.type != 's') {
    throw Error("unknown format code '{}' for object of type '{}'", spec.type, value.type_name());
  }
  return format_text(runtime, to_text(value), spec);
}

// "a.b[c]" of a replacement field.
Value field_value(Runtime& runtime, std::string_view field, const Arguments& arguments,
                  std::size_t& automatic) {
  const std::size_t end = std::min(field.find_first_of(".["), field.size());
  const std::string_view name = field.substr(0, end);
  Value value;
  if (name.empty() || (name[0] >= '0' && name[0] <= '9')) {
    std::size_t i = 0;
    const std::size_t index = name.empty() ? automatic++ : static_cast<std::size_t>(read_number(name, i));
    if (index >= arguments.positional.size()) {
      throw Error("replacement index {} out of range for positional arguments", index);
    }
    value = arguments.positional[index];
  } else {
    const auto found = std::find_if(arguments.keyword.begin(), arguments.keyword.end(),
                                    [&](const auto& keyword) { return keyword.first == name; });
    if (found == arguments.keyword.end()) throw Error("format() has no argument '{}'", name);
    value = found->second;
  }
  for (std::size_t i = end; i < field.size();) {
    const bool bracket = field[i] == '[';
    const std::size_t stop = std::min(field.find_first_of(bracket ? "]" : ".[", i + 1), field.size());
    const std::string_view key = field.substr(i + 1, stop - i - 1);
    std::size_t digits = 0;
    const bool is_index =
        bracket && !key.empty() && key.find_first_not_of("0123456789") == std::string_view::npos;
    const Value by = is_index ? Value::integer(read_number(key, digits)) : Value::text(key, true);
    value = bracket ? item_of(runtime, value, by) : attribute_of(runtime, value, by);
    i = stop + (bracket ? 1 : 0);
  }
  return value;
}

}  // namespace

Value brace_format(Runtime& runtime, const Text& format, const Arguments& arguments) {
  const std::string& s = format.bytes();
  Text result;
  std::size_t automatic = 0;
  for (std::size_t i = 0; i < s.size();) {
    const std::size_t brace = std::min(s.find_first_of("{}", i), s.size());
    result.append_part(format, i, brace);
    if (brace == s.size()) break;
    if (brace + 1 < s.size() && s[brace + 1] == s[brace]) {
      result.append_part(format, brace, brace + 1);
      i = brace + 2;
      continue;
    }
    const std::size_t end = s.find('}', brace);
    if (s[brace] == '}' || end == std::string::npos) throw Error("single '{}' in format string", s[brace]);
    const std::size_t colon = std::min(s.find(':', brace), end);
    const std::size_t mark = std::min(s.find('!', brace), colon);
    const std::string_view field = std::string_view(s).substr(brace + 1, mark - brace - 1);
    Value value = field_value(runtime, field, arguments, automatic);
    if (mark < colon) {
      const std::string_view conversion = std::string_view(s).substr(mark + 1, colon - mark - 1);
      if (conversion != "s" && conversion != "r") throw Error("unknown conversion '!{}'", conversion);
      value = Value::text(conversion == "s" ? to_text(value) : Text(repr(value), false));
    }
    const Spec spec = colon < end ? parse_spec(format.part(colon + 1, end)) : Spec();
    result.append(formatted(runtime, value, spec));
    runtime.spend_text(result.size());
    i = end + 1;
  }
  return Value::text(std::move(result));
}

Value percent_format(Runtime& runtime, const Text& format, const Value& values) {
  const std::string& s = format.bytes();
  std::vector<Value> given{values};
  if (values.is_list() && values.as_list().is_tuple) given = values.as_list().items;
  std::size_t used = 0;
  Text result;
  for (std::size_t i = 0; i < s.size();) {
    const std::size_t percent = std::min(s.find('%', i), s.size());
    result.append_part(format, i, percent);
    if (percent == s.size()) break;
    i = percent + 1;
    Value value;
    bool by_name = false;
    if (i < s.size() && s[i] == '(') {
      const std::size_t close = s.find(')', i);
      if (close == std::string::npos || !values.is_dict()) throw Error("format requires a mapping");
      const Value* found = values.as_dict().find(std::string_view(s).substr(i + 1, close - i - 1));
      if (!found) throw Error("format() has no key '{}'", s.substr(i + 1, close - i - 1));
      value = *found;
      by_name = true;
      i = close + 1;
    }
    Spec spec;
    spec.align = '>';
    for (; i < s.size() && std::string_view("-+ #0").find(s[i]) != std::string_view::npos; ++i) {
      if (s[i] == '-') spec.align = '<';
      if (s[i] == '+' || (s[i] == ' ' && spec.sign == '-')) spec.sign = s[i];
      if (s[i] == '#') spec.alternate = true;
      if (s[i] == '0' && spec.align != '<') {
        spec.fill = Text("0", true);
        spec.align = '=';
      }
    }
    spec.width = read_number(s, i);
    if (i < s.size() && s[i] == '.') spec.precision = read_number(s, ++i);
    if (i >= s.size()) throw Error("incomplete format");
    spec.type = s[i++];
    if (spec.type == '%') {
      result.append_part(format, i - 1, i);
      continue;
    }
    if (!by_name) {
      if (used >= given.size()) throw Error("not enough arguments for format string");
      value = given[used++];
    }
    if (spec.type == 'i' || spec.type == 'u') spec.type = 'd';
    if (spec.type == 'r') value = Value::text(Text(repr(value), false));
    if (spec.type == 'r' || spec.type == 's') {
      if (spec.align == '=') spec.align = '>', spec.fill = Text(" ", true);
      runtime.spend(value.weight());
      result.append(format_text(runtime, to_text(value), spec));
    } else if (std::string_view("dfFeEgGxXo").find(spec.type) == std::string_view::npos) {
      throw Error("unsupported format character '{}'", spec.type);
    } else if (!value.is_number()) {
      throw Error("%{} format: a real number is required, not {}", spec.type, value.type_name());
    } else {
      const bool truncate = spec.type == 'd' && !value.is_integral() && std::abs(value.as_double()) < 9e18;
      if (truncate) value = Value::integer(static_cast<std::int64_t>(value.as_double()), value.trusted());
      result.append(formatted(runtime, value, spec));
    }
    runtime.spend_text(result.size());
  }
  const bool is_tuple = values.is_list() && values.as_list().is_tuple;
  if (used < given.size() && (is_tuple || !(values.is_dict() || values.is_list())))
    throw Error("not all arguments converted during string formatting");
  return Value::text(std::move(result));
}

}  // namespace bise::jinja
