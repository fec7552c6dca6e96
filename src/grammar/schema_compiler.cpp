#include "grammar/schema_compiler.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "grammar/json_schema.h"
#include "grammar/schema_scalars.h"
#include "grammar/word_list.h"

namespace bise {
namespace {

constexpr int kMaxDepth = 64;

void reject_unsupported(const Json& schema) {
  for (const char* key : {"$dynamicRef", "$recursiveRef", "not", "if", "then", "else", "dependentRequired",
                          "dependentSchemas", "dependencies", "contains", "minContains", "maxContains"})
    if (schema.contains(key)) throw Error("the keyword '{}' is not supported", key);
  const auto unique = schema.find("uniqueItems");
  if (unique != schema.end() && *unique != false) throw Error("the keyword 'uniqueItems' is not supported");
  const auto unevaluated = schema.find("unevaluatedItems");
  if (unevaluated != schema.end() && !unevaluated->is_boolean())
    throw Error("the keyword 'unevaluatedItems' is supported as true or false only");
}

// Which types the keywords of a schema without `type` speak about.
std::vector<std::string> implied_types(const Json& schema) {
  const struct {
    const char* type;
    std::vector<const char*> keys;
  } kImplied[] = {
      {"object",
       {"properties", "required", "additionalProperties", "patternProperties", "propertyNames",
        "minProperties", "maxProperties", "unevaluatedProperties"}},
      {"array", {"items", "prefixItems", "additionalItems", "unevaluatedItems", "minItems", "maxItems"}},
      {"string", {"minLength", "maxLength", "pattern", "format"}},
      {"number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}},
  };
  std::vector<std::string> types;
  for (const auto& implied : kImplied)
    if (std::any_of(implied.keys.begin(), implied.keys.end(),
                    [&](const char* key) { return schema.contains(key); }))
      types.push_back(implied.type);
  return types;
}

std::vector<std::string> types_of(const Json& schema) {
  if (!schema.contains("type")) return implied_types(schema);
  std::vector<std::string> types;
  const Json& given = schema["type"];
  for (const Json& type : given.is_array() ? given : Json::array({given})) {
    if (!type.is_string()) throw Error("type is wrong").expected("a string or a list of strings");
    types.push_back(type.get<std::string>());
  }
  // An integer is a number: the one alternative covers the other.
  if (std::find(types.begin(), types.end(), "number") != types.end()) std::erase(types, "integer");
  return types;
}

bool has_type(const Json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "integer") return value.is_number_integer();
  return type == "number" && value.is_number();
}

bool only_annotations_beside(const Json& schema, const char* key) {
  for (const auto& [other, value] : schema.items())
    if (other != key && !is_annotation(other)) return false;
  return true;
}

}  // namespace

std::uint32_t SchemaCompiler::run() {
  const Expr root = reference("#");
  for (; !pending_.empty(); pending_.pop_front()) {
    const auto& [rule, name] = pending_.front();
    rules_.define(rule, compile(document_.at(name), name, 0));
  }
  return root->rule;
}

Expr SchemaCompiler::reference(const std::string& name) {
  const auto [found, added] = by_reference_.try_emplace(name, 0);
  if (added) {
    document_.at(name);
    found->second = rules_.declare(name);
    pending_.emplace_back(found->second, name);
  }
  return rule_call(found->second);
}

Expr SchemaCompiler::compile(const Json& schema, const std::string& where, int depth) {
  if (depth > kMaxDepth) throw Error("the schema is nested deeper than {}", kMaxDepth).at(where);
  if (schema.is_boolean()) return schema.get<bool>() ? json_.value() : choice({});
  if (!schema.is_object())
    throw Error("a schema is wrong").at(where).expected("an object or a boolean").got(json_text(schema));
  try {
    if (schema.contains("$ref") && only_annotations_beside(schema, "$ref") && schema["$ref"].is_string())
      return reference(schema["$ref"].get<std::string>());
    const Json expanded = expanded_schema(schema, document_);
    if (expanded.is_boolean()) return compile(expanded, where, depth + 1);
    const auto [found, added] = by_text_.try_emplace(expanded.dump(), 0);
    if (!added) return rule_call(found->second);
    const std::uint32_t rule = found->second = rules_.declare(where);
    rules_.define(rule, body(expanded, where, depth));
    return rule_call(rule);
  } catch (const Error& error) {
    if (!error.where().empty()) throw;
    rethrow_inside(error, where);
  }
}

Expr SchemaCompiler::body(const Json& schema, const std::string& where, int depth) {
  reject_unsupported(schema);
  for (const char* key : {"anyOf", "oneOf"})
    if (schema.contains(key)) return alternatives(schema, key, where, depth);
  if (schema.value("nullable", false)) {
    Json rest = schema;
    rest.erase("nullable");
    return choice({compile(rest, where, depth + 1), literal("null")});
  }
  if (schema.contains("const")) {
    if (!schema.contains("enum")) return constants(schema, Json::array({schema["const"]}));
    const bool member =
        std::find(schema["enum"].begin(), schema["enum"].end(), schema["const"]) != schema["enum"].end();
    return member ? constants(schema, Json::array({schema["const"]})) : choice({});
  }
  if (schema.contains("enum")) {
    if (!schema["enum"].is_array()) throw Error("enum is not a list");
    return constants(schema, schema["enum"]);
  }
  const std::vector<std::string> types = types_of(schema);
  if (types.empty() && !schema.contains("type")) return json_.value();
  std::vector<Expr> parts;
  for (const std::string& type : types) parts.push_back(of_type(type, schema, where, depth));
  return choice(std::move(parts));
}

// oneOf is taken as anyOf: that only one alternative holds cannot be said by a grammar.
Expr SchemaCompiler::alternatives(const Json& schema, const char* key, const std::string& where, int depth) {
  const Json& options = schema[key];
  if (!options.is_array() || options.empty()) throw Error("{} is not a list of schemas", key);
  Json rest = schema;
  rest.erase(key);
  const bool bare = only_annotations_beside(rest, "");
  std::vector<Expr> parts;
  for (std::size_t i = 0; i < options.size(); ++i) {
    const std::string place = fmt::format("{}/{}/{}", where, key, i);
    parts.push_back(
        compile(bare ? options[i] : merged_schemas(rest, options[i], document_), place, depth + 1));
  }
  return choice(std::move(parts));
}

Expr SchemaCompiler::constants(const Json& schema, const Json& values) {
  const std::vector<std::string> types =
      schema.contains("type") ? types_of(schema) : std::vector<std::string>();
  const auto right_type = [&](const Json& value) {
    return !schema.contains("type") ||
           std::any_of(types.begin(), types.end(), [&](const auto& type) { return has_type(value, type); });
  };
  const ScalarCheck satisfies(schema);
  std::vector<Expr> parts;
  std::vector<std::string> scalars;
  for (const Json& value : values) {
    if (!right_type(value)) continue;
    if (!value.is_structured()) {
      if (satisfies(value)) scalars.push_back(json_text(value));
      continue;
    }
    Json others = schema;
    for (const char* key : {"type", "enum", "const"}) others.erase(key);
    if (!only_annotations_beside(others, ""))
      throw Error("an enum of objects or arrays beside other keywords is not supported");
    parts.push_back(json_.constant(value));
  }
  parts.push_back(one_of_texts(std::move(scalars)));
  return choice(std::move(parts));
}

Expr SchemaCompiler::of_type(const std::string& type, const Json& schema, const std::string& where,
                             int depth) {
  if (type == "string") return string_schema(schema, json_);
  if (type == "integer" || type == "number") return number_schema(schema, type == "integer", json_);
  if (type == "boolean") return choice({literal("true"), literal("false")});
  if (type == "null") return literal("null");
  if (type == "array") return array(schema, where, depth);
  if (type == "object") return object(schema, where, depth);
  throw Error("an unknown type").got(type);
}

std::uint32_t add_json_schema(Rules& rules, const Json& schema, JsonSchemaOptions options) {
  try {
    return SchemaCompiler(rules, schema, options).run();
  } catch (const nlohmann::json::exception& problem) {
    throw Error("the schema is invalid: {}", problem.what());
  }
}

}  // namespace bise
