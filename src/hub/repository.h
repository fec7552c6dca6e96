// What the hub says of a repository: the commit a revision stands for, and the files at a commit.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "hub/hub_client.h"
#include "hub/names.h"

namespace bise {

struct HubFile {
  std::string path;  // safe as a relative path
  std::uint64_t size = 0;
  std::string blob_id;     // git's SHA-1
  std::string lfs_sha256;  // of a large file's content, or ""
  std::string xet_hash;    // kept for huggingface_hub's listing, or ""

  // The name of the content, which is its checksum: that of its blob in the cache.
  const std::string& etag() const { return lfs_sha256.empty() ? blob_id : lfs_sha256; }
};

// The files of one page of the tree route; folders are skipped. Throws Error naming `where` for anything
// malformed, unsafe names included.
std::vector<HubFile> parse_tree_page(std::string_view json, const std::string& where);

// The commit in the answer of the revision route.
std::string parse_commit(std::string_view json, const std::string& where);

// The address in a Link field with rel="next", or "".
std::string next_link(std::string_view link_field);

// huggingface_hub's trees/<commit>.json. Reading gives nothing for another version or damage of any kind.
std::string tree_cache_text(const std::vector<HubFile>& files);
std::vector<HubFile> parse_tree_cache(std::string_view json);

// `revision` is a branch, tag or commit. Throws Error in words when there is none.
std::string resolve_revision(HubClient& client, RepoType type, const std::string& repo,
                             const std::string& revision);
std::vector<HubFile> list_files(HubClient& client, RepoType type, const std::string& repo,
                                const std::string& commit);

// Where a file's content is asked for.
std::string file_url(const HubSettings& settings, RepoType type, const std::string& repo,
                     const std::string& commit, const std::string& path);

}  // namespace bise
