#include "grammar/schema_scalars.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "grammar/regex.h"
#include "grammar/string_formats.h"
#include "grammar/unicode_set.h"

namespace bise {
namespace {

constexpr int kMaxCount = 1'000'000;

Dfa quoted_pattern(const std::string& pattern, bool search) {
  return determinize(*quoted(parse_regex(pattern, {.encode = json_string_character, .search = search})));
}

// `exclusiveMinimum` is a number, or true beside `minimum` (draft 4).
void add_bounds(const Json& schema, const char* key, const char* exclusive_key,
                std::vector<NumberBounds::Bound>& bounds) {
  const auto exclusive = schema.find(exclusive_key);
  const bool flag = exclusive != schema.end() && exclusive->is_boolean();
  if (schema.contains(key)) bounds.push_back({decimal_of(schema[key]), flag && exclusive->get<bool>()});
  if (exclusive != schema.end() && !flag) bounds.push_back({decimal_of(*exclusive), true});
}

}  // namespace

std::optional<int> find_count(const Json& schema, const char* key) {
  const auto found = schema.find(key);
  if (found == schema.end()) return std::nullopt;
  const double count = found->is_number() ? found->get<double>() : -1;
  if (count < 0 || count != std::floor(count))
    throw Error("{} is wrong", key).expected("a whole number").got(json_text(*found));
  if (count > kMaxCount) throw Error("{} is above {}", key, kMaxCount).got(json_text(*found));
  return static_cast<int>(count);
}

std::optional<std::string> find_text(const Json& schema, const char* key) {
  const auto found = schema.find(key);
  if (found == schema.end()) return std::nullopt;
  if (!found->is_string()) throw Error("{} is wrong", key).expected("a string").got(json_text(*found));
  return found->get<std::string>();
}

std::optional<Dfa> string_language(const Json& schema) {
  std::optional<Dfa> result;
  const auto also = [&](Dfa language) {
    result = result ? intersection(*result, language) : std::move(language);
  };
  if (const auto pattern = find_text(schema, "pattern")) also(quoted_pattern(*pattern, true));
  if (const auto format = find_text(schema, "format"))
    if (const auto pattern = string_format(*format)) also(quoted_pattern(*pattern, false));
  if (!result) return std::nullopt;
  const auto min = find_count(schema, "minLength"), max = find_count(schema, "maxLength");
  if (min || max)
    also(determinize(
        *quoted(repeat(json_character(), min.value_or(0), max.value_or(Expression::kUnbounded)))));
  return result;
}

Expr string_schema(const Json& schema, JsonRules& json) {
  if (std::optional<Dfa> language = string_language(schema))
    return dfa_expression(std::make_shared<const Dfa>(std::move(*language)));
  const auto min = find_count(schema, "minLength"), max = find_count(schema, "maxLength");
  if (min.value_or(0) == 0 && !max) return json.string();
  if (max && *max < min.value_or(0)) return choice({});
  return json.string_of_length(min.value_or(0), max.value_or(Expression::kUnbounded));
}

NumberBounds number_bounds(const Json& schema) {
  NumberBounds bounds;
  add_bounds(schema, "minimum", "exclusiveMinimum", bounds.lower);
  add_bounds(schema, "maximum", "exclusiveMaximum", bounds.upper);
  if (schema.contains("multipleOf")) bounds.divisors.push_back(decimal_of(schema["multipleOf"]));
  return bounds;
}

Expr number_schema(const Json& schema, bool integer, JsonRules& json) {
  const NumberBounds bounds = number_bounds(schema);
  if (!bounds.any()) return integer ? json.integer() : json.number();
  return integer ? json_integer_within(bounds) : json_number_within(bounds);
}

ScalarCheck::ScalarCheck(const Json& schema) {
  Json strings = schema;
  if (schema.contains("minLength") || schema.contains("maxLength"))
    strings.emplace("pattern", "");  // so that the length becomes part of the language
  strings_ = string_language(strings);
  const NumberBounds bounds = number_bounds(schema);
  if (bounds.any()) numbers_ = determinize(*json_number_within(bounds));
}

bool ScalarCheck::operator()(const Json& value) const {
  if (value.is_string()) return !strings_ || accepts(*strings_, json_text(value));
  return !value.is_number() || !numbers_ || accepts(*numbers_, json_text(value));
}

bool accepts(const Dfa& dfa, std::string_view text) {
  std::uint32_t state = 0;
  for (const char c : text) {
    state = dfa.next(state, static_cast<std::uint8_t>(c));
    if (state == Dfa::kNone) return false;
  }
  return dfa.states[state].final;
}

}  // namespace bise
