// Structural tags: free text in which parts marked by tags follow a schema (xgrammar's and vLLM's format).
#pragma once

#include "base/json.h"
#include "grammar/expression.h"
#include "grammar/grammar.h"

namespace bise {

// Either form of {"type": "structural_tag", ...}: "structures" with "triggers", or "format". Throws Error
// naming the place.
Expr structural_tag(Rules& rules, const Json& description, JsonSchemaOptions options);

}  // namespace bise
