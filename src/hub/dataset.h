// `bise download --dataset`: splits of a data set on the hub, through its rows API, as DIR/<split>.jsonl: one
// JSON object a line with the hub's fields and order, which is what `bise eval --data-dir` reads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "hub/dataset_rows.h"
#include "hub/hub_client.h"

namespace bise {

// The splits that the hub has of `repo`. Throws Error in words.
std::vector<DatasetSplit> list_splits(HubClient& client, const std::string& repo);

struct SplitRequest {
  std::string repo, config, split;
  std::filesystem::path folder;
  bool again = false;   // even when it is here
  int connections = 4;  // pages asked for at the same time
};

struct SplitResult {
  std::filesystem::path path;
  std::uint64_t rows = 0, bytes = 0;
  std::string sha256;
  bool was_here = false;
};

// Called after each page with rows brought and rows of the split.
using RowsProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

// Rows wait in <split>.jsonl.incomplete; a later run goes on behind the last whole one, unless the data set
// has another revision by then. folder/dataset.json records where each file is from, its rows and its
// SHA-256; a file that is recorded and has its checksum is not brought again.
SplitResult download_split(HubClient& client, const SplitRequest& request, const RowsProgress& progress);

}  // namespace bise
