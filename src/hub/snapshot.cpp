#include "hub/snapshot.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "hub/cache.h"
#include "hub/file_pattern.h"
#include "hub/local_folder.h"
#include "hub/repository.h"

namespace bise {
namespace {
namespace fs = std::filesystem;

std::vector<HubFile> selected(std::vector<HubFile> files, const SnapshotRequest& request) {
  const std::size_t all = files.size();
  std::erase_if(
      files, [&](const HubFile& file) { return !is_selected(file.path, request.include, request.exclude); });
  if (files.empty())
    throw Error("none of the {} files of {} is selected by --include and --exclude", all, request.repo);
  // A reader that looks for config.json finds it only when the rest is there.
  std::ranges::stable_partition(files, [](const HubFile& file) { return file.path != "config.json"; });
  return files;
}

// One blob for each content; two files may have the same.
template <class MakeBlob>
std::vector<Blob> blobs_of(const std::vector<HubFile>& files, const SnapshotRequest& request,
                           const HubSettings& settings, const std::string& commit, MakeBlob place) {
  std::vector<Blob> blobs;
  std::set<fs::path> targets;
  for (const HubFile& file : files) {
    Blob blob{.name = file.path,
              .url = file_url(settings, request.type, request.repo, commit, file.path),
              .etag = file.etag(),
              .size = file.size,
              .target = {},
              .partial = {},
              .lock = {}};
    place(file, blob);
    if (targets.insert(blob.target).second) blobs.push_back(std::move(blob));
  }
  return blobs;
}

void fetch_to_cache(HubClient& client, const HubCache& cache, const SnapshotRequest& request,
                    const std::string& commit, const std::vector<HubFile>& files,
                    const FetchProgress& progress) {
  cache.prepare(request.type, request.repo);
  const auto blobs =
      blobs_of(files, request, client.settings(), commit, [&](const HubFile& file, Blob& blob) {
        blob.target = cache.blob(request.type, request.repo, file.etag());
        // Not huggingface_hub's own name: its older versions would take the holes between our ranges for
        // data.
        blob.partial = blob.target.string() + ".bise.incomplete";
        blob.beginning = blob.target.string() + ".incomplete";
        blob.lock = cache.lock(request.type, request.repo, file.etag());
      });
  fetch_blobs(client, blobs, request.fetch, progress);
  for (const HubFile& file : files) cache.link(request.type, request.repo, commit, file);
}

void fetch_to_folder(HubClient& client, const HubCache& cache, const SnapshotRequest& request,
                     const std::string& commit, const std::vector<HubFile>& files,
                     const FetchProgress& progress) {
  LocalFolder folder(request.local_dir);
  std::vector<HubFile> missing;
  for (const HubFile& file : files)
    if (!folder.has(file, commit)) missing.push_back(file);
  // What the cache has is copied, not asked for.
  for (const HubFile& file : missing)
    folder.stage_copy(file, cache.blob(request.type, request.repo, file.etag()));
  const auto blobs =
      blobs_of(missing, request, client.settings(), commit, [&](const HubFile& file, Blob& blob) {
        blob.target = folder.staged(file);
        blob.partial = blob.target.string() + ".incomplete";
        blob.lock = folder.lock(file);
      });
  fetch_blobs(client, blobs, request.fetch, progress);
  for (const HubFile& file : missing) folder.place(file, commit);
}

// What is on this disk, when the hub may not be asked.
Snapshot offline_snapshot(const HubCache& cache, const SnapshotRequest& request) {
  const auto commit = cache.commit_of(request.type, request.repo, request.revision);
  const fs::path folder = commit ? cache.snapshot(request.type, request.repo, *commit) : fs::path();
  if (!commit || !fs::is_directory(folder))
    throw Error("{} at revision {} is not on this machine, and offline mode is on (HF_HUB_OFFLINE)",
                request.repo, request.revision)
        .at(cache.repo_folder(request.type, request.repo).string());
  Snapshot snapshot{folder, *commit};
  const auto tree = cache.tree(request.type, request.repo, *commit);
  for (const HubFile& file : tree) {
    if (!is_selected(file.path, request.include, request.exclude)) continue;
    if (!fs::is_regular_file(folder / file.path))
      throw Error("the download of {} is not complete, and offline mode is on (HF_HUB_OFFLINE)", request.repo)
          .at((folder / file.path).string());
  }
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.is_regular_file()) continue;
    ++snapshot.files;
    snapshot.bytes += entry.file_size();
  }
  return snapshot;
}

}  // namespace

Snapshot download_snapshot(HubClient& client, const SnapshotRequest& request, const FetchProgress& progress) {
  require_repo_id(request.repo);
  const HubCache cache(client.settings().cache_dir);
  if (client.settings().offline) {
    if (!request.local_dir.empty())
      throw Error("offline mode is on (HF_HUB_OFFLINE): nothing can be downloaded to a folder")
          .at(request.local_dir.string());
    return offline_snapshot(cache, request);
  }
  const std::string commit = resolve_revision(client, request.type, request.repo, request.revision);
  std::vector<HubFile> tree = cache.tree(request.type, request.repo, commit);
  const bool known = !tree.empty();
  if (!known) tree = list_files(client, request.type, request.repo, commit);
  if (tree.empty()) throw Error("{} has no files at revision {}", request.repo, request.revision);
  const std::vector<HubFile> files = selected(tree, request);

  Snapshot snapshot;
  snapshot.commit = commit;
  snapshot.files = files.size();
  for (const HubFile& file : files) snapshot.bytes += file.size;
  if (!request.local_dir.empty()) {
    fetch_to_folder(client, cache, request, commit, files, progress);
    snapshot.folder = request.local_dir;
    return snapshot;
  }
  fetch_to_cache(client, cache, request, commit, files, progress);
  if (!known) cache.write_tree(request.type, request.repo, commit, tree);
  cache.write_ref(request.type, request.repo, request.revision, commit);
  snapshot.folder = cache.snapshot(request.type, request.repo, commit);
  return snapshot;
}

}  // namespace bise
