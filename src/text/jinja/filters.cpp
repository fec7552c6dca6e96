// Filters on single values: text and numbers. sequence_filters.cpp has those on sequences.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <unordered_map>

#include "base/error.h"
#include "text/jinja/characters.h"
#include "text/jinja/operations.h"
#include "text/jinja/string_operations.h"

namespace bise::jinja {
namespace {

Text input_text(Runtime& runtime, const Value& input) {
  runtime.spend(input.weight());
  return to_text(input);
}

Value like(const Value& input, Text text) {
  return input.is_markup() ? Value::markup(std::move(text)) : Value::text(std::move(text));
}

template <Text (*changed)(Runtime&, const Text&)>
Value change_text(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("filter", {});
  return like(input, changed(runtime, input_text(runtime, input)));
}

Value trim(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("trim", {"chars"});
  const Text* chars = given.has(0) && !given[0].is_none() ? &given.text(0) : nullptr;
  return like(input, stripped(input_text(runtime, input), chars, true, true));
}

// The filter's own rule for where a word starts, which differs from str.title.
Value title(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("title", {});
  const Text text = input_text(runtime, input);
  runtime.spend(16 * text.size());
  Text result;
  bool word_start = true;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t end = i + character_length(text.bytes()[i]);
    const std::uint32_t c = character_at(text.bytes(), i);
    std::string changed;
    append_character(changed, word_start ? to_upper(c) : to_lower(c));
    result.append(changed, text.trusted_at(i));
    word_start = is_space(c) ||
                 (c < 0x80 && std::string_view("-({[<").find(static_cast<char>(c)) != std::string_view::npos);
    i = end;
  }
  return Value::text(std::move(result));
}

Value replace(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("replace", {"old", "new", "count"}, 2);
  const std::int64_t count = given.has(2) && !given[2].is_none() ? given.integer(2, -1) : -1;
  return Value::text(
      replaced(runtime, input_text(runtime, input), to_text(given[0]), to_text(given[1]), count));
}

Value escape(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("escape", {});
  return input.is_markup() ? input : Value::markup(escaped(runtime, input_text(runtime, input)));
}

Value force_escape(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("forceescape", {});
  return Value::markup(escaped(runtime, input_text(runtime, input)));
}

Value safe(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("safe", {});
  return Value::markup(input_text(runtime, input));
}

Value string(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("string", {});
  return like(input, input_text(runtime, input));
}

Value indent(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("indent", {"width", "first", "blank"});
  const Text by = given[0].is_text()
                      ? given.text(0)
                      : padded(runtime, Text(), given.integer(0, 4), Text(" ", true), Alignment::kLeft);
  const bool blank = given.flag(2, false);
  Text text = input_text(runtime, input);
  text.append("\n", true);
  Text result;
  bool first = true;
  for (std::size_t begin = 0; begin < text.size();) {
    const LineEnd end = find_line_end(text.bytes(), begin);
    if (!first) result.append("\n", text.trusted_at(begin - 1));
    if (first ? given.flag(1, false) : blank || end.end > begin) result.append(by);
    result.append_part(text, begin, end.end);
    runtime.spend_text(result.size() > Runtime::kMaxOutput ? result.size() : by.size() + 16);
    begin = end.next;
    first = false;
  }
  return Value::text(std::move(result));
}

Value center(Runtime& runtime, const Value& input, Arguments& arguments) {
  const std::int64_t width = arguments.bind("center", {"width"}).integer(0, 80);
  return Value::text(padded(runtime, input_text(runtime, input), width, Text(" ", true), Alignment::kCenter));
}

Value truncate(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("truncate", {"length", "killwords", "end", "leeway"});
  const Text text = input_text(runtime, input);
  const Text end = given.has(2) ? given.text(2) : Text("...", true);
  const std::int64_t length = given.integer(0, 255);
  const auto end_length = static_cast<std::int64_t>(count_characters(end.bytes()));
  if (length < end_length) throw Error("truncate: expected length >= {}, got {}", end_length, length);
  if (static_cast<std::int64_t>(count_characters(text.bytes())) <= length + given.integer(3, 5))
    return Value::text(text);
  std::size_t stop = byte_offset(text.bytes(), static_cast<std::size_t>(length - end_length));
  if (!given.flag(1, false)) {
    const std::size_t space = std::string_view(text.bytes()).substr(0, stop).rfind(' ');
    if (space != std::string_view::npos) stop = space;
  }
  Text result = text.part(0, stop);
  result.append(end);
  return Value::text(std::move(result));
}

Value wordcount(Runtime& runtime, const Value& input, Arguments& arguments) {
  arguments.bind("wordcount", {});
  const std::string text = input_text(runtime, input).bytes();
  std::int64_t words = 0;
  bool inside = false;
  for (std::size_t i = 0; i < text.size(); i += character_length(text[i])) {
    const std::uint32_t c = character_at(text, i);
    if (c >= 0x80) runtime.spend(200);
    const bool is_word =
        c == '_' || has_property(c, Property::kAlphabetic) || has_property(c, Property::kNumeric);
    words += is_word && !inside;
    inside = is_word;
  }
  return Value::integer(words);
}

Value format(Runtime& runtime, const Value& input, Arguments& arguments) {
  if (!arguments.keyword.empty() && !arguments.positional.empty()) {
    throw Error("format: can't handle positional and keyword arguments at the same time");
  }
  Dict named;
  for (const auto& [name, value] : arguments.keyword) named.set(Value::text(name, true), value);
  const bool by_name = !arguments.keyword.empty();
  return percent_format(runtime, input_text(runtime, input),
                        by_name ? Value::dict(std::move(named)) : Value::tuple(arguments.positional));
}

Value to_json_text(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ensure_ascii = given.flag(0, false);
  style.sort_keys = given.flag(3, false);
  style.indented = given.has(1) && !given[1].is_none();
  if (style.indented) {
    constexpr std::int64_t kMaxIndent = 32;
    if (given[1].is_text()) {
      style.indent = given.text(1).bytes();
    } else {
      style.indent = std::string(
          static_cast<std::size_t>(std::clamp<std::int64_t>(given.integer(1, 0), 0, kMaxIndent + 1)), ' ');
    }
    if (style.indent.size() > kMaxIndent) throw Error("tojson(): indent is larger than {}", kMaxIndent);
    style.item_separator.assign(1, ',');
  }
  if (given.has(2) && !given[2].is_none()) {
    const auto separators = items_of(runtime, given[2]);
    if (separators->items.size() != 2 || !separators->items[0].is_text() || !separators->items[1].is_text()) {
      throw Error("tojson(): separators must be two strings");
    }
    style.item_separator = separators->items[0].as_text().bytes();
    style.key_separator = separators->items[1].as_text().bytes();
    if (style.item_separator.size() + style.key_separator.size() > 64)
      throw Error("tojson(): separators are too long");
  }
  runtime.spend(input.weight());
  const std::string text = to_json(input, style);
  runtime.spend_text(text.size());
  return Value::text(text, false);
}

Value absolute(Runtime&, const Value& input, Arguments& arguments) {
  arguments.bind("abs", {});
  if (input.is_undefined()) throw Error("{}", input.undefined_message());
  if (!input.is_number()) throw Error("bad operand type for abs(): '{}'", input.type_name());
  const bool negative = input.is_integral() ? input.as_integer() < 0 : std::signbit(input.as_double());
  return negative              ? negated(input)
         : input.is_integral() ? Value::integer(input.as_integer(), input.trusted())
                               : input;
}

Value round(Runtime&, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("round", {"precision", "method"});
  if (!input.is_number()) throw Error("round needs a number, not {}", input.type_name());
  const std::int64_t precision = given.integer(0, 0);
  if (std::abs(precision) > 300) throw Error("round(): precision {} is out of range", precision);
  const std::string method = given.has(1) ? given.text(1).bytes() : "common";
  const double number = input.as_double();
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (method == "ceil") return Value::floating(std::ceil(number * scale) / scale, input.trusted());
  if (method == "floor") return Value::floating(std::floor(number * scale) / scale, input.trusted());
  if (method != "common") throw Error("round(): method must be common, ceil or floor");
  // the decimal digits of the exact value decide, as in CPython
  double rounded = number;
  if (precision >= 0 && std::isfinite(number)) {
    const std::string digits = fmt::format("{:.{}f}", number, precision);
    std::from_chars(digits.data(), digits.data() + digits.size(), rounded);
  } else if (std::isfinite(number)) {
    rounded = std::nearbyint(number * scale) / scale;
  }
  if (input.is_integral()) return Value::integer(static_cast<std::int64_t>(rounded), input.trusted());
  return Value::floating(rounded, input.trusted());
}

// int(text) or int(float(text)); the default for what is no number.
Value to_integer(Runtime&, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("int", {"default", "base"});
  const Value fallback = given.has(0) ? given[0] : Value::integer(0);
  if (input.is_integral()) return Value::integer(input.as_integer(), input.trusted());
  if (input.is_number()) {
    if (!(std::abs(input.as_double()) < 9e18)) return fallback;
    return Value::integer(static_cast<std::int64_t>(input.as_double()), input.trusted());
  }
  if (!input.is_text()) return fallback;
  const Text stripped_text = stripped(input.as_text(), nullptr, true, true);
  std::string digits = stripped_text.bytes();
  std::erase(digits, '_');
  std::int64_t base = given.integer(1, 10);
  if (base < 2 || base > 36) throw Error("int(): base must be from 2 to 36");
  const bool negative = digits.starts_with('-');
  if (negative || digits.starts_with('+')) digits.erase(0, 1);
  if (digits.size() > 2 && digits[0] == '0' && base != 10) {
    const char radix = static_cast<char>(digits[1] | 0x20);
    if ((base == 16 && radix == 'x') || (base == 8 && radix == 'o') || (base == 2 && radix == 'b'))
      digits.erase(0, 2);
  }
  std::int64_t value = 0;
  const char* end = digits.data() + digits.size();
  const auto whole = std::from_chars(digits.data(), end, value, static_cast<int>(base));
  if (whole.ec == std::errc() && whole.ptr == end) {
    return Value::integer(negative ? -value : value, stripped_text.trusted());
  }
  double number = 0;
  const auto real = std::from_chars(digits.data(), end, number);
  if (real.ec != std::errc() || real.ptr != end || !(std::abs(number) < 9e18)) return fallback;
  return Value::integer(static_cast<std::int64_t>(negative ? -number : number), stripped_text.trusted());
}

Value to_float(Runtime&, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("float", {"default"});
  const Value fallback = given.has(0) ? given[0] : Value::floating(0.0);
  if (input.is_number()) return Value::floating(input.as_double(), input.trusted());
  if (!input.is_text()) return fallback;
  const Text text = stripped(input.as_text(), nullptr, true, true);
  std::string digits = text.bytes();
  std::erase(digits, '_');
  if (digits.starts_with('+')) digits.erase(0, 1);
  double number = 0;
  const auto result = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (result.ec != std::errc() || result.ptr != digits.data() + digits.size() || digits.empty())
    return fallback;
  return Value::floating(number, text.trusted());
}

Value fallback_value(Runtime&, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("default", {"default_value", "boolean"});
  const bool use = input.is_undefined() || (given.flag(1, false) && !input.truth());
  if (!use) return input;
  return given.has(0) ? given[0] : Value::text(Text());
}

Value attribute(Runtime& runtime, const Value& input, Arguments& arguments) {
  const auto given = arguments.bind("attr", {"name"}, 1);
  // attributes only, never items: what a namespace or loop holds, and methods
  if (input.is_dict() && !find_method(input, given.text(0).bytes())) {
    return Value::undefined(fmt::format("'dict object' has no attribute '{}'", given.text(0).bytes()));
  }
  return attribute_of(runtime, input, given[0]);
}

}  // namespace

FilterFunction find_filter(std::string_view name) {
  static const std::unordered_map<std::string_view, FilterFunction> kFilters = {
      {"trim", trim},
      {"upper", change_text<upper>},
      {"lower", change_text<lower>},
      {"capitalize", change_text<capitalized>},
      {"title", title},
      {"replace", replace},
      {"escape", escape},
      {"e", escape},
      {"forceescape", force_escape},
      {"safe", safe},
      {"string", string},
      {"indent", indent},
      {"center", center},
      {"truncate", truncate},
      {"wordcount", wordcount},
      {"format", format},
      {"tojson", to_json_text},
      {"abs", absolute},
      {"round", round},
      {"int", to_integer},
      {"float", to_float},
      {"default", fallback_value},
      {"d", fallback_value},
      {"attr", attribute},
  };
  const auto found = kFilters.find(name);
  return found == kFilters.end() ? nullptr : found->second;
}

}  // namespace bise::jinja
