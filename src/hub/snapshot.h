// `bise download REPO`: the files of a repository at one commit, in the hub's cache or in a folder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "hub/blob_fetcher.h"
#include "hub/hub_client.h"
#include "hub/names.h"

namespace bise {

struct SnapshotRequest {
  RepoType type = RepoType::kModel;
  std::string repo, revision = "main";
  std::vector<std::string> include, exclude;  // wildcards
  std::filesystem::path local_dir;            // or "": the cache only
  FetchOptions fetch;
};

struct Snapshot {
  std::filesystem::path folder;
  std::string commit;
  std::size_t files = 0;
  std::uint64_t bytes = 0;  // of all files, brought or already here
};

// Nothing has the name of a finished file or folder before all are here and right: in the cache the
// snapshot's links are made last, in a folder the files get their names last, config.json after the others.
// Offline, what an earlier download left is given back. Throws Error in words.
Snapshot download_snapshot(HubClient& client, const SnapshotRequest& request, const FetchProgress& progress);

}  // namespace bise
