// Constraints on generated text: each kind that vLLM's `response_format` and `structured_outputs` name is
// compiled to one Grammar, an automaton over bytes with a stack. Compiling belongs on a worker thread, not on
// the engine's; it is bounded in time and memory whatever the input. A Grammar is immutable and shared by
// threads; a Matcher (grammar/matcher.h) follows one generated text through it.
//
// Every function throws Error naming the place when the input is invalid, asks for something unsupported,
// matches no text at all or is too large; the server answers 400.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>

#include "base/json.h"

namespace bise {

class Grammar;
using GrammarPtr = std::shared_ptr<const Grammar>;

struct JsonSchemaOptions {
  // Whitespace wherever JSON allows it inside a value (vLLM's default), at most kMaxJsonWhitespace characters
  // in one place so that no model can go on with blanks for ever. Otherwise exactly ", " and ": ", as
  // vLLM's --structured-outputs-config.disable_any_whitespace.
  bool any_whitespace = true;
  // An object that lists `properties` (or `patternProperties`) without `additionalProperties` allows no
  // others, as xgrammar and vLLM have it. Otherwise JSON Schema's own rule: it allows any.
  bool strict = true;
};
inline constexpr int kMaxJsonWhitespace = 128;

// A JSON value that satisfies `schema`: see docs/structured_output.md for the keywords. Properties come in
// the order of the schema, optional ones may be left out.
GrammarPtr compile_json_schema(const Json& schema, JsonSchemaOptions options = {});
// The same from text.
GrammarPtr compile_json_schema(std::string_view schema, JsonSchemaOptions options = {});

// Any JSON object.
GrammarPtr compile_json_object(JsonSchemaOptions options = {});

// Text that matches the whole of a regular expression: the syntax that ECMAScript, Python and RE2 share,
// without look-around and back references.
GrammarPtr compile_regex(std::string_view pattern);

// One of the texts.
GrammarPtr compile_choice(std::span<const std::string> choices);

// A context-free grammar: GBNF as llama.cpp and xgrammar write it (recognised by "::=", starts at `root`) or
// Lark (starts at `start`).
GrammarPtr compile_ebnf(std::string_view text);

// Free text in which parts marked by tags follow a schema:
// {"type": "structural_tag", "structures": [{"begin", "schema", "end"}], "triggers": [...]} or the newer
// {"type": "structural_tag", "format": {...}}.
GrammarPtr compile_structural_tag(const Json& description, JsonSchemaOptions options = {});

}  // namespace bise
