// The constraint that makes a model call tools: tool_choice "required" or a name, and tools marked strict.
#pragma once

#include <optional>

#include "serve/chat_answer.h"
#include "serve/chat_request.h"
#include "serve/structured_output.h"

namespace bise {

struct ToolConstraint {
  ConstraintSpec spec;
  std::vector<std::int32_t> prefix;  // tokens before the constrained text
};

// Nothing when the request leaves calls to the model. Throws ApiError.
std::optional<ToolConstraint> tool_constraint(const ChatRequest& request, const ChatParsing& parsing,
                                              const ServedModel& model);

}  // namespace bise
