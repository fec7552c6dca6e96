// Checks the messages of a chat request and brings them into the form that templates expect.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace bise {

// Whether `role` is one of system, developer, user, assistant, tool and their like.
bool is_known_role(std::string_view role);

// Throws Error naming the place unless `messages` is a non-empty array of objects, each with a string "role",
// a "content" that is absent, null, a string or a list of text parts, and "tool_calls", if any, that name
// functions.
void check_messages(const Json& messages);

// The text of checked content: its parts with `separator` between them; "" when absent or null.
std::string content_text(const Json& message, std::string_view separator);

// The messages with content as one string (parts joined by newlines) or as a list of parts, arguments of tool
// calls parsed from their JSON text, and reasoning copied to the name that templates read. `where` names
// arguments that are no JSON.
Json normalized_messages(const Json& messages, bool content_as_parts);

}  // namespace bise
