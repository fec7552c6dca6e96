// Which files of a repository to take: the wildcards of Python's fnmatch, as huggingface_hub uses them.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace bise {

// Python's fnmatch.fnmatchcase: '*' (across '/' too), '?', "[a-c]", "[!a-c]"; the rest stands for itself.
// Both are UTF-8.
bool matches_pattern(std::string_view name, std::string_view pattern);

// huggingface_hub's filter_repo_objects: in any of `include` (all when empty) and in none of `exclude`. A
// pattern that ends in '/' takes the folder's content; a backslash counts as '/'.
bool is_selected(std::string_view path, const std::vector<std::string>& include,
                 const std::vector<std::string>& exclude);

}  // namespace bise
