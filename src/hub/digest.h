// The hashes that the hub names content by: SHA-256 of large files, git's SHA-1 of the others.
#pragma once

#include <atomic>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/digest.h"

namespace bise {

std::string sha256_file(const std::filesystem::path& path);

// The content's name on the hub: SHA-256 when `etag` is one, else git's name of a blob (SHA-1 of
// "blob SIZE\0" and the content). Throws Error when the file cannot be read; "" when `stop` became true.
std::string content_etag(const std::filesystem::path& path, std::string_view etag,
                         const std::atomic<bool>* stop = nullptr);

}  // namespace bise
