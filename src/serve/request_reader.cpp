#include "serve/request_reader.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "serve/api_error.h"
#include "serve/json_text.h"

namespace bise {
namespace {

constexpr std::size_t kMaxLines = 10, kMaxInput = 200;

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

std::optional<double> lax_number(const Json& value) {
  if (value.is_boolean()) return value.get<bool>() ? 1.0 : 0.0;
  double number = 0;
  if (value.is_number()) {
    number = value.get<double>();
  } else if (value.is_string()) {
    const std::string_view text = trimmed(value.get_ref<const std::string&>());
    const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
    if (text.empty() || result.ec != std::errc() || result.ptr != text.data() + text.size())
      return std::nullopt;
  } else {
    return std::nullopt;
  }
  // JSON has no NaN and no infinity; text might.
  return std::isfinite(number) ? std::optional(number) : std::nullopt;
}

std::optional<bool> lax_boolean(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) {
    if (value.get<double>() == 0) return false;
    if (value.get<double>() == 1) return true;
  }
  if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    for (const char* yes : {"true", "1", "yes", "on", "y", "t"})
      if (equal_ignoring_case(text, yes)) return true;
    for (const char* no : {"false", "0", "no", "off", "n", "f"})
      if (equal_ignoring_case(text, no)) return false;
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::int64_t> lax_integer(const Json& value) {
  if (value.is_boolean()) return value.get<bool>() ? 1 : 0;
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{INT64_MAX})
    return std::nullopt;
  if (value.is_number_integer()) return value.get<std::int64_t>();
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (std::floor(number) == number && std::fabs(number) < 9e15) return static_cast<std::int64_t>(number);
  }
  if (value.is_string()) {
    const std::string_view text = trimmed(value.get_ref<const std::string&>());
    std::int64_t number = 0;
    const auto result = std::from_chars(text.data(), text.data() + text.size(), number);
    if (!text.empty() && result.ec == std::errc() && result.ptr == text.data() + text.size()) return number;
  }
  return std::nullopt;
}

void Problems::add(std::string location, std::string_view text) {
  if (count_ == 0) first_location_ = location;
  if (++count_ > kMaxLines) return;
  lines_ += fmt::format("\n  {}: {}", location, text);
}

void Problems::add(std::string location, std::string_view text, const Json& input) {
  if (count_ >= kMaxLines) return add(std::move(location), text);  // not shown
  // Cutting text may cut a character: what is left of it must not reach the answer.
  std::string shown = json_text(input);
  if (shown.size() > kMaxInput) shown = valid_utf8(std::string_view(shown).substr(0, kMaxInput)) + "...";
  add(std::move(location), fmt::format("{} (got {})", text, shown));
}

void Problems::throw_if_any() const {
  if (count_ == 0) return;
  throw ApiError(400, "Bad Request",
                 fmt::format("{} validation error{}:{}", count_, count_ == 1 ? "" : "s", lines_),
                 first_location_);
}

RequestReader::RequestReader(const Json& object, std::string location, Problems& problems)
    : object_(object), location_(std::move(location)), problems_(problems) {}

std::string RequestReader::location(const char* name) const {
  return location_ + "." + name;
}

const Json* RequestReader::any(const char* name) const {
  const auto found = object_.find(name);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

void RequestReader::wrong_type(const char* name, std::string_view expected) {
  problems_.add(location(name), fmt::format("Input should be {}", expected), *any(name));
}

std::optional<bool> RequestReader::boolean(const char* name) {
  const Json* value = any(name);
  if (!value) return std::nullopt;
  const auto result = lax_boolean(*value);
  if (!result) wrong_type(name, "a valid boolean");
  return result;
}

std::optional<std::int64_t> RequestReader::integer(const char* name) {
  const Json* value = any(name);
  if (!value) return std::nullopt;
  const auto result = lax_integer(*value);
  if (!result) wrong_type(name, "a valid integer");
  return result;
}

std::optional<double> RequestReader::number(const char* name) {
  const Json* value = any(name);
  if (!value) return std::nullopt;
  const auto result = lax_number(*value);
  if (!result) wrong_type(name, "a valid number");
  return result;
}

std::optional<std::string> RequestReader::string(const char* name) {
  const Json* value = any(name);
  if (!value) return std::nullopt;
  if (value->is_string()) return value->get<std::string>();
  wrong_type(name, "a valid string");
  return std::nullopt;
}

std::optional<std::vector<std::string>> RequestReader::strings(const char* name, bool or_one) {
  const Json* value = any(name);
  if (!value) return std::nullopt;
  if (or_one && value->is_string()) return std::vector{value->get<std::string>()};
  if (!value->is_array()) {
    wrong_type(name, or_one ? "a string or a list of strings" : "a list of strings");
    return std::nullopt;
  }
  std::vector<std::string> result;
  for (std::size_t i = 0; i < value->size(); ++i) {
    const Json& entry = (*value)[i];
    if (entry.is_string()) {
      result.push_back(entry.get<std::string>());
    } else {
      problems_.add(fmt::format("{}.{}", location(name), i), "Input should be a valid string", entry);
    }
  }
  return result;
}

std::optional<std::vector<std::int64_t>> RequestReader::integers(const char* name) {
  const Json* value = any(name);
  if (!value) return std::nullopt;
  if (!value->is_array()) {
    wrong_type(name, "a list of integers");
    return std::nullopt;
  }
  std::vector<std::int64_t> result;
  for (std::size_t i = 0; i < value->size(); ++i) {
    if (const auto number = lax_integer((*value)[i])) {
      result.push_back(*number);
    } else {
      problems_.add(fmt::format("{}.{}", location(name), i), "Input should be a valid integer", (*value)[i]);
    }
  }
  return result;
}

const Json* RequestReader::object(const char* name) {
  const Json* value = any(name);
  if (!value || value->is_object()) return value;
  wrong_type(name, "an object");
  return nullptr;
}

const Json* RequestReader::array(const char* name) {
  const Json* value = any(name);
  if (!value || value->is_array()) return value;
  wrong_type(name, "a list");
  return nullptr;
}

}  // namespace bise
