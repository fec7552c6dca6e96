// JSON with errors that name the place. `Json` keeps the order of keys, so that a file read and written
// again differs only where it was changed. Only .cpp files include <nlohmann/json.hpp>.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace bise {

using Json = nlohmann::ordered_json;

// Parses UTF-8 `text`. `where` names it in errors. Throws Error on invalid JSON or UTF-8, on nesting
// deeper than 200. Of duplicate keys the last one wins, as in Python.
Json parse_json(std::string_view text, const std::string& where);

// Reads and parses a whole file. Throws Error if it is absent, larger than `max_bytes` or invalid.
Json read_json_file(const std::filesystem::path& path, std::size_t max_bytes = std::size_t{1} << 30);

// The text of `value`: one line when `indent` is negative. Invalid UTF-8 inside is replaced by U+FFFD.
std::string json_text(const Json& value, int indent = -1);

// Typed members of `object`: throw Error naming `where` and the key when the key is absent (require_*) or
// has another type; find_* return `fallback` when the key is absent or null.
const Json& require(const Json& object, const char* key, const std::string& where);
std::int64_t require_int(const Json& object, const char* key, const std::string& where);
double require_number(const Json& object, const char* key, const std::string& where);
std::string require_string(const Json& object, const char* key, const std::string& where);
std::int64_t find_int(const Json& object, const char* key, std::int64_t fallback, const std::string& where);
double find_number(const Json& object, const char* key, double fallback, const std::string& where);
bool find_bool(const Json& object, const char* key, bool fallback, const std::string& where);
std::string find_string(const Json& object, const char* key, const std::string& fallback,
                        const std::string& where);

}  // namespace bise
