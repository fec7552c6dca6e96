// The work of add_json_schema (grammar/json_schema.h), split by the type of instance.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/json.h"
#include "grammar/expression.h"
#include "grammar/finite_automaton.h"
#include "grammar/json_rules.h"
#include "grammar/members_graph.h"
#include "grammar/schema_merge.h"

namespace bise {

class SchemaCompiler {
 public:
  SchemaCompiler(Rules& rules, const Json& root, JsonSchemaOptions options)
      : rules_(rules), json_(rules, options), options_(options), document_(root) {}

  // The rule of the whole document.
  std::uint32_t run();

 private:
  // What `schema`, which stands at `where`, allows. Throws Error.
  Expr compile(const Json& schema, const std::string& where, int depth);
  Expr body(const Json& schema, const std::string& where, int depth);
  Expr alternatives(const Json& schema, const char* key, const std::string& where, int depth);
  Expr constants(const Json& schema, const Json& values);
  Expr of_type(const std::string& type, const Json& schema, const std::string& where, int depth);
  Expr reference(const std::string& name);

  Expr array(const Json& schema, const std::string& where, int depth);
  Expr object(const Json& schema, const std::string& where, int depth);
  std::vector<ObjectMember> listed_members(const Json& schema, const std::string& where, int depth);
  std::vector<ObjectMember> open_members(const Json& schema, const std::string& where, int depth);
  Json property_schema(const Json& schema, const std::string& name);
  const Dfa& name_pattern(const std::string& pattern);
  std::optional<Dfa> name_language(const Json& schema);
  bool allows_additional(const Json& schema) const;

  Rules& rules_;
  JsonRules json_;
  JsonSchemaOptions options_;
  SchemaDocument document_;
  std::unordered_map<std::string, std::uint32_t> by_reference_;
  std::unordered_map<std::string, std::uint32_t> by_text_;  // schemas seen before, as JSON text
  std::unordered_map<std::string, Dfa> name_patterns_;
  std::deque<std::pair<std::uint32_t, std::string>> pending_;  // references whose rules have no body yet
};

}  // namespace bise
