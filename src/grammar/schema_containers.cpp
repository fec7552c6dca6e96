// Arrays and objects of JSON schemas.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/error.h"
#include "grammar/members_graph.h"
#include "grammar/regex.h"
#include "grammar/schema_compiler.h"
#include "grammar/schema_scalars.h"
#include "grammar/unicode_set.h"
#include "grammar/word_list.h"

namespace bise {
namespace {

Expr only(Dfa dfa) {
  return dfa_expression(std::make_shared<const Dfa>(std::move(dfa)));
}

const Json& empty_object() {
  static const Json empty = Json::object();
  return empty;
}

const Json& members_of(const Json& schema, const char* key) {
  const auto found = schema.find(key);
  if (found == schema.end()) return empty_object();
  if (!found->is_object()) throw Error("{} is not an object", key);
  return *found;
}

std::set<std::string> required_names(const Json& schema) {
  std::set<std::string> names;
  const auto found = schema.find("required");
  if (found == schema.end()) return names;
  if (!found->is_array()) throw Error("required is not a list");
  for (const Json& name : *found) {
    if (!name.is_string()) throw Error("required holds something that is not a string");
    names.insert(name.get<std::string>());
  }
  return names;
}

}  // namespace

Expr SchemaCompiler::array(const Json& schema, const std::string& where, int depth) {
  // Up to draft 2019-09 a list of `items` is what `prefixItems` is now.
  const bool old_style = schema.contains("items") && schema["items"].is_array();
  const Json prefix = old_style ? schema["items"] : schema.value("prefixItems", Json::array());
  if (!prefix.is_array()) throw Error("prefixItems is not a list");
  const char* rest_key = old_style ? "additionalItems" : "items";
  std::vector<Expr> items;
  for (std::size_t i = 0; i < prefix.size(); ++i)
    items.push_back(compile(prefix[i], fmt::format("{}/prefixItems/{}", where, i), depth + 1));
  const bool closed = (options_.strict && !prefix.empty()) || schema.value("unevaluatedItems", true) == false;
  Expr rest = choice({});
  if (schema.contains(rest_key)) {
    if (schema[rest_key] != false) rest = compile(schema[rest_key], where + "/" + rest_key, depth + 1);
  } else if (!closed) {
    rest = json_.value();
  }
  const int min = find_count(schema, "minItems").value_or(0);
  const std::optional<int> max = find_count(schema, "maxItems");
  if (max && *max < min) return choice({});
  // Node i: i items so far; the last of them stands for that many or more when there is no maximum.
  const int listed = static_cast<int>(items.size());
  const int last = max ? *max : std::max({min, listed, 1});
  std::vector<GraphEdge> edges;
  const int end = last + 1;
  for (int i = 0; i <= last; ++i) {
    const Expr item = i < listed ? items[static_cast<std::size_t>(i)] : rest;
    const Expr next = i == 0 ? item : sequence({json_.comma(), item});
    if (i < last) edges.push_back({i, i + 1, next});
    if (i == last && !max) edges.push_back({i, i, next});
    if (i >= min) edges.push_back({i, end, i == 0 ? literal("") : json_.blank()});
  }
  return json_.bracketed('[', end + 1, std::move(edges), ']');
}

bool SchemaCompiler::allows_additional(const Json& schema) const {
  for (const char* key : {"additionalProperties", "unevaluatedProperties"})
    if (schema.contains(key)) return schema[key] != false;
  return !options_.strict || (!schema.contains("properties") && !schema.contains("patternProperties"));
}

// The names, with their quotes, that a key of patternProperties stands for.
const Dfa& SchemaCompiler::name_pattern(const std::string& pattern) {
  const auto found = name_patterns_.find(pattern);
  if (found != name_patterns_.end()) return found->second;
  const RegexOptions options{.encode = json_string_character, .search = true};
  return name_patterns_.emplace(pattern, determinize(*quoted(parse_regex(pattern, options)))).first->second;
}

// What holds for the member `name`: its own schema and those of the patterns it matches.
Json SchemaCompiler::property_schema(const Json& schema, const std::string& name) {
  Json result = true;
  const Json& properties = members_of(schema, "properties");
  bool known = properties.contains(name);
  if (known) result = properties[name];
  for (const auto& [pattern, value] : members_of(schema, "patternProperties").items()) {
    if (!accepts(name_pattern(pattern), json_text(Json(name)))) continue;
    result = known ? Json{{"allOf", Json::array({result, value})}} : value;
    known = true;
  }
  if (known) return result;
  for (const char* key : {"additionalProperties", "unevaluatedProperties"})
    if (schema.contains(key)) return schema[key];
  return true;
}

// The members with names of their own, in the order of the schema.
std::vector<ObjectMember> SchemaCompiler::listed_members(const Json& schema, const std::string& where,
                                                         int depth) {
  std::vector<std::string> names;
  for (const auto& [name, value] : members_of(schema, "properties").items()) names.push_back(name);
  const std::size_t known = names.size();
  const std::set<std::string> known_names(names.begin(), names.end());
  const std::set<std::string> required_set = required_names(schema);
  for (const std::string& name : required_set)
    if (!known_names.contains(name)) names.push_back(name);
  std::vector<ObjectMember> members;
  for (std::size_t i = 0; i < names.size(); ++i) {
    const bool is_required = required_set.contains(names[i]);
    const Json value = property_schema(schema, names[i]);
    if (value == false) {
      if (is_required) throw Error("the required property '{}' is not allowed", names[i]);
      continue;
    }
    const char* key = i < known ? "properties" : "required";
    members.push_back({json_string_constant(names[i]),
                       compile(value, fmt::format("{}/{}/{}", where, key, names[i]), depth + 1),
                       is_required});
  }
  return members;
}

// `propertyNames`: the names, with their quotes, that open members may have; nothing when any may.
std::optional<Dfa> SchemaCompiler::name_language(const Json& schema) {
  if (!schema.contains("propertyNames")) return std::nullopt;
  Json names = expanded_schema(schema["propertyNames"], document_);
  if (names == true) return std::nullopt;
  if (names == false) return determinize(*choice({}));
  if (!names.contains("pattern")) names["pattern"] = "";
  for (const auto& [key, value] : names.items())
    if (!is_annotation(key) && !key.ends_with("Length") && key != "type" && key != "pattern" &&
        key != "format" && key != "enum")
      throw Error("the keyword '{}' is not supported in propertyNames", key);
  if (!names.contains("enum")) return string_language(names);
  const ScalarCheck satisfies(names);
  std::vector<std::string> texts;
  for (const Json& name : names["enum"])
    if (name.is_string() && satisfies(name)) texts.push_back(json_text(name));
  return determinize(*one_of_texts(std::move(texts)));
}

// The members whose names follow a pattern, or are free. No name falls under two of them, or is one of the
// listed ones: whoever reads the text would have to apply both schemas.
std::vector<ObjectMember> SchemaCompiler::open_members(const Json& schema, const std::string& where,
                                                       int depth) {
  std::vector<std::string> listed;
  for (const auto& [name, value] : members_of(schema, "properties").items())
    listed.push_back(json_text(Json(name)));
  for (const std::string& name : required_names(schema)) listed.push_back(json_text(Json(name)));
  const Dfa excluded = determinize(*one_of_texts(std::move(listed)));
  std::vector<std::pair<Dfa, Expr>> patterns;
  for (const auto& [pattern, value] : members_of(schema, "patternProperties").items()) {
    const std::string place = where + "/patternProperties/" + pattern;
    patterns.emplace_back(name_pattern(pattern), compile(value, place, depth + 1));
  }
  const std::optional<Dfa> names = name_language(schema);
  std::vector<ObjectMember> members;
  for (std::size_t i = 0; i < patterns.size(); ++i) {
    Dfa name = difference(patterns[i].first, excluded);
    for (std::size_t k = 0; k < patterns.size(); ++k)
      if (k != i) name = difference(name, patterns[k].first);
    if (names) name = intersection(name, *names);
    members.push_back({only(std::move(name)), patterns[i].second});
  }
  if (!allows_additional(schema)) return members;
  Dfa name = determinize(*quoted(repeat(json_canonical_character(), 0, Expression::kUnbounded)));
  name = difference(name, excluded);
  for (const auto& [pattern, value] : patterns) name = difference(name, pattern);
  if (names) name = intersection(name, *names);
  const char* key =
      schema.contains("additionalProperties") ? "additionalProperties" : "unevaluatedProperties";
  const Expr value =
      schema.contains(key) ? compile(schema[key], where + "/" + key, depth + 1) : json_.value();
  // Nothing to tell apart: the shared rule of strings.
  const bool any_name = excluded.empty() && patterns.empty() && !names;
  members.push_back(
      {any_name ? json_.string() : rule_call(rules_.add(where + "/names", only(std::move(name)))), value});
  return members;
}

Expr SchemaCompiler::object(const Json& schema, const std::string& where, int depth) {
  const std::vector<ObjectMember> listed = listed_members(schema, where, depth);
  const std::vector<ObjectMember> open = open_members(schema, where, depth);
  const int min = find_count(schema, "minProperties").value_or(0);
  const int max = find_count(schema, "maxProperties").value_or(Expression::kUnbounded);
  if (max != Expression::kUnbounded && max < min) return choice({});
  return MembersGraph(rules_, json_, listed, open, min, max).object();
}

}  // namespace bise
