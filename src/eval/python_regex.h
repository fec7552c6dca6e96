// Python's re module and str methods as the harness's code uses them. Patterns are in Python's syntax; texts
// are UTF-8 (invalid bytes are replaced first). Pure functions.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

// The pattern in PCRE2's syntax: "$" also stands before a newline at the end, "\Z" at the very end.
std::string python_pattern(const std::string& pattern);
// re.escape for any text.
std::string python_escape(std::string_view text);

// All throw Error for a pattern that does not compile, or a search that takes too many steps.
// re.findall with all groups: groups[0] is the match.
std::vector<std::vector<std::string>> python_find_all(const std::string& pattern, std::string_view text);
// re.search: the groups of the first match.
std::optional<std::vector<std::string>> python_search(const std::string& pattern, std::string_view text);
// re.sub with a function of the groups.
std::string python_sub(
    const std::string& pattern, std::string_view text,
    const std::function<std::string(std::span<const std::string_view> groups)>& replacement);
// re.split for a pattern without groups.
std::vector<std::string> python_split(const std::string& pattern, std::string_view text);

// str.strip(): white space as Unicode defines it at both ends.
std::string_view python_strip(std::string_view text);
// str.lower(), one character to one.
std::string python_lower(std::string_view text);

}  // namespace bise
