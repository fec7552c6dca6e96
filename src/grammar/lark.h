// The part of Lark's grammar language that generation needs: rules and terminals (?rule, !rule, priorities
// and aliases change trees, not texts, and are skipped), strings, /regular expressions/, "a".."z", groups,
// [optional], quantifiers, %ignore and %import common.NAME. As in llguidance, <name> is a control token of
// the vocabulary (<[TOOL_CALLS]> or <|im_end|>), and %json {...} a value that satisfies a schema. The start
// is `start`. What is matched is the text; that a terminal takes as much as it can is not modelled.
#pragma once

#include <cstdint>
#include <string_view>

#include "grammar/expression.h"
#include "grammar/grammar.h"

namespace bise {

// Adds the rules of `text`; returns its root. Throws Error naming the place.
std::uint32_t add_lark(Rules& rules, std::string_view text, JsonSchemaOptions options);

}  // namespace bise
