// Files: mapped for reading, written whole or not at all.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace bise {

// The whole file as bytes. Throws Error when it is absent, unreadable or larger than `max_bytes`.
std::string read_file(const std::filesystem::path& path, std::size_t max_bytes = std::size_t{1} << 32);

// Writes `path` through a temporary name in the same folder and a rename: readers see the old content or
// the new, never a part. Throws Error (a full disk included) and leaves no temporary file.
void write_file(const std::filesystem::path& path, std::string_view content);

// A file mapped read-only into memory; unmapped with the last copy of the shared pointer. Pages come in
// when they are first read. Safe to read from any thread.
class MappedFile {
 public:
  // Throws Error when the file is absent, unreadable or not a regular file. An empty file maps to no bytes.
  static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const std::filesystem::path& path() const { return path_; }
  // Tells the kernel that these bytes are not needed soon, so that they do not count as resident.
  void release(std::span<const std::byte> part) const;

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

// A file of known size being written at any offset. Create it inside an AtomicFolder. One thread at a time.
class SizedFile {
 public:
  // Reserves `size` bytes on the disk; throws Error at once when they do not fit.
  SizedFile(const std::filesystem::path& path, std::size_t size);
  ~SizedFile();
  SizedFile(const SizedFile&) = delete;
  SizedFile& operator=(const SizedFile&) = delete;

  void write(std::size_t offset, std::span<const std::byte> bytes);
  // Flushes to the disk and closes. Throws Error when that fails.
  void close();

 private:
  std::filesystem::path path_;
  std::size_t size_;
  int descriptor_;
};

// A folder that appears under its name only when it is complete: written as NAME.partial, renamed by
// commit(). A folder that is never committed is removed by the destructor; one that a killed process left
// behind is removed when the same folder is written again.
class AtomicFolder {
 public:
  // Throws Error when `target` exists and is not empty, unless `replace`, or when it cannot be made.
  explicit AtomicFolder(const std::filesystem::path& target, bool replace = false);
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  // Where to write meanwhile.
  const std::filesystem::path& path() const { return partial_; }
  void commit();

 private:
  std::filesystem::path target_, partial_;
  bool committed_ = false;
};

// Total size in bytes of the regular files under `folder`.
std::uintmax_t folder_bytes(const std::filesystem::path& folder);

}  // namespace bise
