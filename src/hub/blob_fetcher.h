// Brings contents of known size and checksum onto this disk: several connections at once, large ones in
// ranges, each going on where an earlier run stopped, none under its name before its checksum is right.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "hub/hub_client.h"

namespace bise {

struct Blob {
  std::string name;  // for messages: the path in the repository
  std::string url;   // at the hub; large contents are redirected from there
  std::string etag;  // SHA-256, or git's SHA-1 of a blob
  std::uint64_t size = 0;
  std::filesystem::path target, partial, lock;
  std::filesystem::path beginning = {};  // what an older huggingface_hub may have left of it, or ""
};

struct FetchOptions {
  int connections = 8;
  // A larger content is fetched in ranges of this size.
  std::uint64_t piece_bytes = std::uint64_t{32} << 20;
};

// Called some times a second, from the thread of fetch_blobs: bytes brought and bytes to bring in this run.
using FetchProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

// Returns when every blob is at its target. Throws the first Error; what has arrived stays for the next run.
// Before anything is asked for, throws Error when the disk has no room for all.
void fetch_blobs(HubClient& client, const std::vector<Blob>& blobs, const FetchOptions& options,
                 const FetchProgress& progress);

}  // namespace bise
