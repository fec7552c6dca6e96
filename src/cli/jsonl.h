// JSON lines: one object a line, from a file or standard input ("-").
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"

namespace bise {

// Calls `row(object, where)` for each line that is not blank; `where` is "FILE: line 3". Throws Error when
// the file cannot be read or a line is no JSON object or longer than 64 MB.
void for_each_jsonl(const std::string& path,
                    const std::function<void(const Json& object, const std::string& where)>& row);

// The token ids in `list`, each from 0 to vocab_size - 1. Throws Error naming `where` when it is no list or
// an id is out of range.
std::vector<std::int32_t> read_token_ids(const Json& list, const std::string& where,
                                         std::int64_t vocab_size = std::int64_t{1} << 31);

// Writes one line to standard output and flushes, so that programs can converse line by line.
void print_jsonl(const Json& object);

}  // namespace bise
