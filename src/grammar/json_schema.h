// A JSON schema as rules. The keywords are those of drafts 4 to 2020-12 that a grammar can express; a keyword
// that changes what is valid and is not supported is refused by name. docs/structured_output.md lists them.
#pragma once

#include "base/json.h"
#include "grammar/expression.h"
#include "grammar/grammar.h"

namespace bise {

// Adds the rules of `schema` to `rules`; returns the one of its instances. Throws Error naming the place
// inside the schema.
std::uint32_t add_json_schema(Rules& rules, const Json& schema, JsonSchemaOptions options);

}  // namespace bise
