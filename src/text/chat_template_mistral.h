// The instruct formats that mistral-common gives Mistral's own tokenizers (tekken.json, tokenizer.model.v*),
// as short templates over messages brought into their normal form.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>

#include "base/json.h"

namespace bise {

// The tokenizer version of a Mistral-native folder: from "version" of tekken.json, or the name of its newest
// tokenizer.model.v*. Nothing when the folder has neither. Throws Error on a version that is not supported.
std::optional<int> find_mistral_version(const std::filesystem::path& folder);

// Throws Error unless `version` is 1, 2, 3, 7, 11 or 13.
void check_mistral_version(int version);

// The Jinja source for `version`. It reads bos_token, eos_token and what mistral_variables gives.
std::string_view mistral_template(int version);

// {"messages", "tools", "system_prompt", "first_user", "last_user"}: neighbouring messages of one role
// joined, system prompts gathered before version 7, JSON inside tool calls and results parsed, call ids cut
// to their last 9 characters. `continue_final_message` leaves the last assistant message open. Throws Error
// for a conversation that mistral-common refuses.
Json mistral_variables(const Json& messages, const Json& tools, int version, bool continue_final_message);

}  // namespace bise
