#include "grammar/schema_merge.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/error.h"

namespace bise {
namespace {

constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxAlternatives = 256;
constexpr std::size_t kMaxWork = 2'000'000;  // JSON values copied

// Every keyword with a meaning for instances.
constexpr std::string_view kKeywords[] = {"$ref",
                                          "$dynamicRef",
                                          "$recursiveRef",
                                          "allOf",
                                          "anyOf",
                                          "oneOf",
                                          "not",
                                          "if",
                                          "then",
                                          "else",
                                          "type",
                                          "enum",
                                          "const",
                                          "nullable",
                                          "properties",
                                          "required",
                                          "additionalProperties",
                                          "patternProperties",
                                          "propertyNames",
                                          "minProperties",
                                          "maxProperties",
                                          "unevaluatedProperties",
                                          "dependentRequired",
                                          "dependentSchemas",
                                          "dependencies",
                                          "items",
                                          "prefixItems",
                                          "additionalItems",
                                          "unevaluatedItems",
                                          "contains",
                                          "minContains",
                                          "maxContains",
                                          "minItems",
                                          "maxItems",
                                          "uniqueItems",
                                          "minLength",
                                          "maxLength",
                                          "pattern",
                                          "format",
                                          "minimum",
                                          "maximum",
                                          "exclusiveMinimum",
                                          "exclusiveMaximum",
                                          "multipleOf"};

std::size_t count_values(const Json& value) {
  std::size_t count = 1;
  if (value.is_structured())
    for (const Json& member : value) count += count_values(member);
  return count;
}

// What `schema` says of instances.
Json without_annotations(const Json& schema) {
  Json result = Json::object();
  for (const auto& [key, value] : schema.items())
    if (!is_annotation(key)) result[key] = value;
  return result;
}

bool is_false(const Json& schema) {
  return schema.is_boolean() && !schema.get<bool>();
}

Json both(const Json& a, const Json& b) {
  if (a == b) return a;
  return Json{{"allOf", Json::array({a, b})}};
}

Json as_list(const Json& value) {
  return value.is_array() ? value : Json::array({value});
}

// The types that both allow; integers are numbers.
Json common_types(const Json& a, const Json& b) {
  Json result = Json::array();
  const auto add = [&](const Json& type) {
    if (std::find(result.begin(), result.end(), type) == result.end()) result.push_back(type);
  };
  for (const Json& x : as_list(a))
    for (const Json& y : as_list(b)) {
      if (x == y) add(x);
      if ((x == "integer" && y == "number") || (x == "number" && y == "integer")) add("integer");
    }
  return result;
}

// Both lists of alternatives: each pair of them.
Json common_alternatives(const Json& a, const Json& b) {
  if (!a.is_array() || !b.is_array() || a.size() * b.size() > kMaxAlternatives)
    throw Error("too many alternatives to join");
  Json result = Json::array();
  for (const Json& x : a)
    for (const Json& y : b) result.push_back(both(x, y));
  return result;
}

Json common_values(const Json& a, const Json& b) {
  Json result = Json::array();
  for (const Json& value : as_list(a))
    if (std::find(b.begin(), b.end(), value) != b.end()) result.push_back(value);
  return result;
}

// Properties of one schema that the other one only knows as additional ones must satisfy that as well.
void restrict_additional(const Json& properties, const Json& other, Json& merged) {
  const auto additional = other.find("additionalProperties");
  if (additional == other.end() || !properties.is_object()) return;
  if (other.contains("patternProperties"))
    throw Error("patternProperties and additionalProperties cannot be joined with another schema");
  const auto known = other.find("properties");
  for (const auto& [name, schema] : properties.items()) {
    if (known != other.end() && known->contains(name)) continue;
    merged["properties"][name] = both(schema, *additional);
  }
}

void merge_keyword(const std::string& key, const Json& theirs, Json& result) {
  Json& ours = result[key];
  if (ours == theirs) return;
  if (key == "type") {
    ours = common_types(ours, theirs);
  } else if (key == "properties" || key == "patternProperties") {
    for (const auto& [name, schema] : theirs.items())
      ours[name] = ours.contains(name) ? both(ours[name], schema) : schema;
  } else if (key == "required") {
    for (const Json& name : theirs)
      if (std::find(ours.begin(), ours.end(), name) == ours.end()) ours.push_back(name);
  } else if (key == "items" || key == "additionalProperties" || key == "propertyNames" ||
             key == "unevaluatedProperties") {
    ours = both(ours, theirs);
  } else if (key.starts_with("min") || (key == "exclusiveMinimum" && ours.is_number())) {
    ours = std::max(ours, theirs);
  } else if (key.starts_with("max") || (key == "exclusiveMaximum" && ours.is_number())) {
    ours = std::min(ours, theirs);
  } else if (key == "anyOf" || key == "oneOf") {
    ours = common_alternatives(ours, theirs);
  } else if (key == "enum") {
    ours = common_values(ours, theirs);
  } else if (key == "nullable") {
    ours = false;
  } else {
    throw Error("two different values of '{}' cannot be joined", key);
  }
}

}  // namespace

const Json& SchemaDocument::at(const std::string& reference) const {
  if (!reference.starts_with("#")) throw Error("a reference to another document").got(reference);
  try {
    return root_.at(Json::json_pointer(reference.substr(1)));
  } catch (const nlohmann::json::exception&) {
    throw Error("a reference to nothing").got(reference);
  }
}

void SchemaDocument::count_work(const Json& copied) const {
  work_ += count_values(copied);
  if (work_ > kMaxWork) throw Error("joining the schemas of allOf, anyOf and $ref takes too much work");
}

bool is_annotation(const std::string& keyword) {
  return std::find(std::begin(kKeywords), std::end(kKeywords), keyword) == std::end(kKeywords);
}

Json merged_schemas(const Json& first, const Json& second, const SchemaDocument& document, int depth) {
  const Json a = expanded_schema(first, document, depth + 1),
             b = expanded_schema(second, document, depth + 1);
  if (is_false(a) || is_false(b)) return false;
  if (a.is_boolean()) return b;
  if (b.is_boolean()) return a;
  Json result = a;
  if (a.contains("properties")) restrict_additional(a["properties"], b, result);
  for (const auto& [key, value] : b.items()) {
    if (is_annotation(key)) continue;
    if (!result.contains(key)) {
      result[key] = value;
    } else {
      merge_keyword(key, value, result);
    }
  }
  if (b.contains("properties")) restrict_additional(b["properties"], a, result);
  document.count_work(result);
  return result;
}

Json expanded_schema(const Json& schema, const SchemaDocument& document, int depth) {
  if (depth > kMaxDepth) throw Error("allOf or $ref nested deeper than {}", kMaxDepth);
  if (!schema.is_object() && !schema.is_boolean()) throw Error("a schema is neither an object nor a boolean");
  if (schema.is_boolean()) return schema;
  document.count_work(schema);
  Json result = without_annotations(schema);
  result.erase("$ref");
  result.erase("allOf");
  if (schema.contains("$ref")) {
    if (!schema["$ref"].is_string()) throw Error("$ref is not a string");
    result = merged_schemas(result, document.at(schema["$ref"].get<std::string>()), document, depth + 1);
  }
  if (schema.contains("allOf")) {
    if (!schema["allOf"].is_array()) throw Error("allOf is not a list");
    for (const Json& part : schema["allOf"]) result = merged_schemas(result, part, document, depth + 1);
  }
  return result;
}

}  // namespace bise
