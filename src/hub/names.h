// Names on the Hugging Face hub: repositories, revisions and the files in them. Pure functions.
#pragma once

#include <string>
#include <string_view>

namespace bise {

enum class RepoType { kModel, kDataset };

// "owner/name" or "name" by the hub's rules: letters, digits, '-', '_', '.', at most 96 each.
bool is_repo_id(std::string_view text);
// Throws Error saying which rule `text` breaks.
void require_repo_id(std::string_view text);

// "models--owner--name": the repository's folder in the cache.
std::string repo_folder_name(RepoType type, std::string_view repo_id);

// "owner/name" or "datasets/owner/name": the repository's path at the endpoint.
std::string repo_url_path(RepoType type, std::string_view repo_id);

// 40 lower-case hex digits.
bool is_commit_hash(std::string_view text);
bool is_sha256(std::string_view text);

// A file's path inside a repository, or a revision, before it becomes a path on this disk: relative, without
// "." or "..", control characters, drive letters, .git or the folder of our own notes. Throws Error naming
// `where` otherwise: a hostile repository must not write elsewhere.
void require_safe_path(std::string_view path, const std::string& where);

}  // namespace bise
