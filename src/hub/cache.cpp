#include "hub/cache.h"

#include <unistd.h>

#include <atomic>

#include "base/error.h"
#include "base/files.h"

namespace bise {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kMostTreeBytes = std::size_t{256} << 20;

void make_folder(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw Error("cannot make the folder: {}", error.message()).at(folder.string());
}

// A name beside `path` that no other process or thread uses.
fs::path unique_beside(const fs::path& path) {
  static std::atomic<int> count = 0;
  return path.string() + fmt::format(".{}-{}.tmp", ::getpid(), ++count);
}

// Readers see the old content or the new; processes may write the same file at the same time.
void put(const fs::path& path, std::string_view content) {
  const fs::path temporary = unique_beside(path);
  write_file(temporary, content);
  std::error_code error;
  fs::rename(temporary, path, error);
  if (!error) return;
  const std::string reason = error.message();
  fs::remove(temporary, error);
  throw Error("cannot write: {}", reason).at(path.string());
}

std::string trimmed(std::string text) {
  text.erase(text.find_last_not_of(" \r\n\t") + 1);
  return text;
}

}  // namespace

void write_cache_tag(const fs::path& folder) {
  std::error_code absent;
  const fs::path path = folder / "CACHEDIR.TAG";
  if (fs::exists(path, absent)) return;
  put(path,
      "Signature: 8a477f597d28d172789f06886806bc55\n# This file is a cache directory tag.\n# For information "
      "about cache directory tags, see:\n#\thttps://bford.info/cachedir/\n");
}

fs::path HubCache::repo_folder(RepoType type, const std::string& repo) const {
  return root_ / repo_folder_name(type, repo);
}
fs::path HubCache::blob(RepoType type, const std::string& repo, const std::string& etag) const {
  return repo_folder(type, repo) / "blobs" / etag;
}
fs::path HubCache::lock(RepoType type, const std::string& repo, const std::string& etag) const {
  return root_ / ".locks" / repo_folder_name(type, repo) / (etag + ".lock");
}
fs::path HubCache::snapshot(RepoType type, const std::string& repo, const std::string& commit) const {
  return repo_folder(type, repo) / "snapshots" / commit;
}

std::optional<std::string> HubCache::commit_of(RepoType type, const std::string& repo,
                                               const std::string& revision) const {
  if (is_commit_hash(revision)) return revision;
  require_safe_path(revision, "revision");
  const fs::path path = repo_folder(type, repo) / "refs" / revision;
  std::error_code absent;
  if (!fs::is_regular_file(path, absent)) return std::nullopt;
  const std::string commit = trimmed(read_file(path, 1024));
  if (!is_commit_hash(commit))
    throw Error("a damaged reference").at(path.string()).expected("a commit: 40 hex digits").got(commit);
  return commit;
}

std::vector<HubFile> HubCache::tree(RepoType type, const std::string& repo, const std::string& commit) const {
  const fs::path path = repo_folder(type, repo) / "trees" / (commit + ".json");
  std::error_code absent;
  if (!fs::is_regular_file(path, absent)) return {};
  return parse_tree_cache(read_file(path, kMostTreeBytes));
}

fs::path HubCache::find_model(const std::string& repo, const std::string& revision) const {
  require_repo_id(repo);
  const std::string flag = revision == "main" ? "" : " --revision " + revision;
  const Error missing = Error("the model {} is not on this machine; get it with: bise download {}{}",
                              revision == "main" ? repo : repo + "@" + revision, repo, flag)
                            .at(repo_folder(RepoType::kModel, repo).string());
  const auto commit = commit_of(RepoType::kModel, repo, revision);
  std::error_code absent;
  if (!commit || !fs::is_directory(snapshot(RepoType::kModel, repo, *commit), absent)) throw missing;
  return snapshot(RepoType::kModel, repo, *commit);
}

void HubCache::prepare(RepoType type, const std::string& repo) const {
  for (const char* name : {"blobs", "refs", "snapshots"}) make_folder(repo_folder(type, repo) / name);
  write_cache_tag(root_);
}

void HubCache::write_tree(RepoType type, const std::string& repo, const std::string& commit,
                          const std::vector<HubFile>& files) const {
  make_folder(repo_folder(type, repo) / "trees");
  put(repo_folder(type, repo) / "trees" / (commit + ".json"), tree_cache_text(files));
}

void HubCache::link(RepoType type, const std::string& repo, const std::string& commit,
                    const HubFile& file) const {
  const fs::path path = snapshot(type, repo, commit) / file.path;
  fs::path target = "../..";
  for (const char c : file.path)
    if (c == '/') target /= "..";
  target = target / "blobs" / file.etag();
  std::error_code error;
  if (fs::is_symlink(path, error) && fs::read_symlink(path, error) == target) return;
  make_folder(path.parent_path());
  const fs::path temporary = unique_beside(path);
  fs::create_symlink(target, temporary, error);
  // Some file systems have no links: then the file itself stands here, as huggingface_hub does it.
  if (error) fs::copy_file(blob(type, repo, file.etag()), temporary, error);
  if (!error) fs::rename(temporary, path, error);
  if (error) throw Error("cannot make the link to a blob: {}", error.message()).at(path.string());
}

void HubCache::write_ref(RepoType type, const std::string& repo, const std::string& revision,
                         const std::string& commit) const {
  if (revision == commit) return;
  const fs::path path = repo_folder(type, repo) / "refs" / revision;
  std::error_code absent;
  if (fs::is_regular_file(path, absent) && read_file(path, 1024) == commit) return;
  make_folder(path.parent_path());
  put(path, commit);
}

}  // namespace bise
