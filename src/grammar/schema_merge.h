// What JSON schemas mean together: `allOf`, and keywords beside `$ref` or `anyOf`.
#pragma once

#include <string>

#include "base/json.h"

namespace bise {

// Finds the schemas that "$ref" names inside one document.
class SchemaDocument {
 public:
  explicit SchemaDocument(const Json& root) : root_(root) {}
  // The schema at a JSON pointer ("#", "#/$defs/x"). Throws Error when there is none.
  const Json& at(const std::string& reference) const;
  // Counts what merging copies; throws Error when a document makes too much of it.
  void count_work(const Json& copied) const;

 private:
  const Json& root_;
  mutable std::size_t work_ = 0;
};

// Whether a keyword only describes: title, default, definitions and the like, or one that JSON Schema does
// not know.
bool is_annotation(const std::string& keyword);

// A schema whose instances are those that satisfy both; without `allOf` and `$ref` on its top level. Throws
// Error where the two cannot be joined.
Json merged_schemas(const Json& a, const Json& b, const SchemaDocument& document, int depth = 0);

// `schema` with its top-level `$ref` and `allOf` worked in.
Json expanded_schema(const Json& schema, const SchemaDocument& document, int depth = 0);

}  // namespace bise
