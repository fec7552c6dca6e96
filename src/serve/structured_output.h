// Structured output: which constraint a request asks for, and its compilation to the mask automaton that the
// engine follows. Compiling may take long: it belongs on a worker.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/token_constraint.h"
#include "serve/request_reader.h"
#include "serve/served_model.h"

namespace bise {

struct ConstraintSpec {
  enum class Kind { kJsonObject, kJsonSchema, kRegex, kChoice, kGrammar, kStructuralTag };
  Kind kind = Kind::kJsonObject;
  // The schema, the pattern, the grammar or the tag description; JSON as text.
  std::string text;
  std::vector<std::string> choices;
  bool any_whitespace = true;
  std::string param;  // the request field it came from
};

// From "response_format" and "structured_outputs"; nothing when neither constrains. Throws ApiError (400)
// unless at most one constraint is given.
std::optional<ConstraintSpec> read_constraint(RequestReader& reader);

// How generation starts before the constraint holds.
struct ConstraintStart {
  // The model may think first: once a thought is open, everything is allowed until it is closed.
  std::vector<std::int32_t> think_start_ids;  // tokens that may open a thought instead of an answer
  std::vector<std::string> think_ends;        // texts that close it
  bool thinking = false;                      // the prompt has opened one
  // Tokens that come before the constrained text, in this order.
  std::vector<std::int32_t> prefix;
};

// For a model that thinks first; `thinking`: the prompt has opened the thought.
ConstraintStart thinking_start(bool thinking, const Tokenizer& tokenizer);

// Throws ApiError (400) when the constraint is invalid or too large.
std::shared_ptr<const TokenConstraint> compile_constraint(const ConstraintSpec& spec, ConstraintStart start,
                                                          const ServedModel& model);

}  // namespace bise
