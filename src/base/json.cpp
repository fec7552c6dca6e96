#include "base/json.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"

namespace bise {
namespace {

constexpr int kMaxDepth = 200;

const Json* member(const Json& object, const char* key, const std::string& where) {
  if (!object.is_object()) throw Error("value is not an object").at(where).got(object.type_name());
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return nullptr;
  return &*found;
}

std::string place(const std::string& where, const char* key) {
  return where + ": key \"" + key + "\"";
}

std::int64_t as_int(const Json& value, const std::string& where) {
  if (value.is_number_integer()) {
    if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{INT64_MAX})
      throw Error("number is too large").at(where).got(value.dump());
    return value.get<std::int64_t>();
  }
  if (value.is_number_float()) {
    const double number = value.get<double>();
    if (std::floor(number) == number && std::fabs(number) < 9e15) return static_cast<std::int64_t>(number);
  }
  throw Error("wrong type").at(where).expected("an integer").got(value.dump().substr(0, 80));
}

double as_number(const Json& value, const std::string& where) {
  if (!value.is_number())
    throw Error("wrong type").at(where).expected("a number").got(value.dump().substr(0, 80));
  return value.get<double>();
}

std::string as_string(const Json& value, const std::string& where) {
  if (!value.is_string())
    throw Error("wrong type").at(where).expected("a string").got(value.dump().substr(0, 80));
  return value.get<std::string>();
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where) {
  const auto limit_depth = [&](int depth, Json::parse_event_t, Json&) {
    if (depth > kMaxDepth) throw Error("JSON is nested deeper than {} levels", kMaxDepth).at(where);
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), limit_depth);
  } catch (const Json::exception& problem) {
    throw Error("invalid JSON: {}", problem.what()).at(where);
  }
}

Json read_json_file(const std::filesystem::path& path, std::size_t max_bytes) {
  return parse_json(read_file(path, max_bytes), path.string());
}

std::string json_text(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

const Json& require(const Json& object, const char* key, const std::string& where) {
  const Json* value = member(object, key, where);
  if (!value) throw Error("key \"{}\" is missing", key).at(where);
  return *value;
}

std::int64_t require_int(const Json& object, const char* key, const std::string& where) {
  return as_int(require(object, key, where), place(where, key));
}

double require_number(const Json& object, const char* key, const std::string& where) {
  return as_number(require(object, key, where), place(where, key));
}

std::string require_string(const Json& object, const char* key, const std::string& where) {
  return as_string(require(object, key, where), place(where, key));
}

std::int64_t find_int(const Json& object, const char* key, std::int64_t fallback, const std::string& where) {
  const Json* value = member(object, key, where);
  return value ? as_int(*value, place(where, key)) : fallback;
}

double find_number(const Json& object, const char* key, double fallback, const std::string& where) {
  const Json* value = member(object, key, where);
  return value ? as_number(*value, place(where, key)) : fallback;
}

bool find_bool(const Json& object, const char* key, bool fallback, const std::string& where) {
  const Json* value = member(object, key, where);
  if (!value) return fallback;
  if (!value->is_boolean())
    throw Error("wrong type")
        .at(place(where, key))
        .expected("true or false")
        .got(value->dump().substr(0, 80));
  return value->get<bool>();
}

std::string find_string(const Json& object, const char* key, const std::string& fallback,
                        const std::string& where) {
  const Json* value = member(object, key, where);
  return value ? as_string(*value, place(where, key)) : fallback;
}

}  // namespace bise
