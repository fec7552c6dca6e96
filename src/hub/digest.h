// The hashes that the hub names content by: SHA-256 of large files, git's SHA-1 of the others (OpenSSL's).
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace bise {

class Digest {
 public:
  enum class Kind { kSha1, kSha256 };
  explicit Digest(Kind kind);
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;

  void update(std::string_view bytes);
  std::string hex();  // ends it; lower case

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_text(std::string_view bytes);
std::string sha256_file(const std::filesystem::path& path);

// The content's name on the hub: SHA-256 when `etag` is one, else git's name of a blob (SHA-1 of
// "blob SIZE\0" and the content). Throws Error when the file cannot be read; "" when `stop` became true.
std::string content_etag(const std::filesystem::path& path, std::string_view etag,
                         const std::atomic<bool>* stop = nullptr);

}  // namespace bise
