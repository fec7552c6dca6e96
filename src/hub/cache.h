// huggingface_hub's cache on disk, as it writes it and reads it:
//   CACHE/models--owner--name/blobs/<etag>                  the content, named by its checksum
//                             snapshots/<commit>/<path>     a relative link to a blob
//                             refs/<revision>               the commit, without a line end
//                             trees/<commit>.json           the list of files
//   CACHE/.locks/models--owner--name/<etag>.lock            held while a blob is being written
// Thread-safe; other processes may use the same cache.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "hub/names.h"
#include "hub/repository.h"

namespace bise {

class HubCache {
 public:
  // `root` is what HF_HUB_CACHE names; it need not exist.
  explicit HubCache(std::filesystem::path root) : root_(std::move(root)) {}

  std::filesystem::path repo_folder(RepoType type, const std::string& repo) const;
  std::filesystem::path blob(RepoType type, const std::string& repo, const std::string& etag) const;
  std::filesystem::path lock(RepoType type, const std::string& repo, const std::string& etag) const;
  std::filesystem::path snapshot(RepoType type, const std::string& repo, const std::string& commit) const;

  // The commit that `revision` (a commit itself, a branch, a tag) had when it was last downloaded.
  std::optional<std::string> commit_of(RepoType type, const std::string& repo,
                                       const std::string& revision) const;
  std::vector<HubFile> tree(RepoType type, const std::string& repo, const std::string& commit) const;
  // The folder of a model that is here. Throws Error naming the command that brings it when it is not.
  std::filesystem::path find_model(const std::string& repo, const std::string& revision) const;

  // Makes the folders, and the tag that tells backup programs to pass by.
  void prepare(RepoType type, const std::string& repo) const;
  void write_tree(RepoType type, const std::string& repo, const std::string& commit,
                  const std::vector<HubFile>& files) const;
  // The snapshot's name for a blob; replaces another one.
  void link(RepoType type, const std::string& repo, const std::string& commit, const HubFile& file) const;
  void write_ref(RepoType type, const std::string& repo, const std::string& revision,
                 const std::string& commit) const;

 private:
  std::filesystem::path root_;
};

// CACHEDIR.TAG, where there is none.
void write_cache_tag(const std::filesystem::path& folder);

}  // namespace bise
