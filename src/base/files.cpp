#include "base/files.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/descriptor.h"
#include "base/error.h"

namespace bise {
namespace fs = std::filesystem;
namespace {

Error system_error(const char* action, const fs::path& path, int code) {
  return Error("cannot {}: {}", action, std::strerror(code)).at(path.string());
}

// Size of the open regular file.
std::size_t regular_size(int descriptor, const fs::path& path) {
  struct stat status {};
  if (::fstat(descriptor, &status) != 0) throw system_error("read", path, errno);
  if (!S_ISREG(status.st_mode)) throw Error("not a regular file").at(path.string());
  return static_cast<std::size_t>(status.st_size);
}

}  // namespace

std::string read_file(const fs::path& path, std::size_t max_bytes) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) throw system_error("open", path, errno);
  const std::size_t size = regular_size(file.get(), path);
  if (size > max_bytes)
    throw Error("file is too large")
        .at(path.string())
        .expected(fmt::format("at most {} bytes", max_bytes))
        .got(fmt::format("{} bytes", size));
  std::string content(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    const ssize_t count = ::read(file.get(), content.data() + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw system_error("read", path, errno);
    if (count == 0) break;
    done += static_cast<std::size_t>(count);
  }
  content.resize(done);
  return content;
}

void write_file(const fs::path& path, std::string_view content) {
  const fs::path temporary = path.string() + ".partial";
  try {
    SizedFile file(temporary, content.size());
    file.write(0, std::as_bytes(std::span(content)));
    file.close();
    fs::rename(temporary, path);
  } catch (const fs::filesystem_error& problem) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw Error("cannot write: {}", problem.code().message()).at(path.string());
  } catch (...) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
}

std::shared_ptr<const MappedFile> MappedFile::open(const fs::path& path) {
  const Descriptor descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (descriptor.get() < 0) throw system_error("open", path, errno);
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  file->size_ = regular_size(descriptor.get(), path);
  if (file->size_ > 0) {
    void* data = ::mmap(nullptr, file->size_, PROT_READ, MAP_SHARED, descriptor.get(), 0);
    if (data == MAP_FAILED) {
      file->size_ = 0;
      throw system_error("map", path, errno);
    }
    file->data_ = static_cast<const std::byte*>(data);
  }
  return file;
}

MappedFile::~MappedFile() {
  if (size_ > 0) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::release(std::span<const std::byte> part) const {
  // Only whole pages inside the part, so that neighbours stay.
  const std::size_t page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = (reinterpret_cast<std::uintptr_t>(part.data()) + page - 1) / page * page;
  const auto end = reinterpret_cast<std::uintptr_t>(part.data() + part.size()) / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

SizedFile::SizedFile(const fs::path& path, std::size_t size)
    : path_(path),
      size_(size),
      descriptor_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
  if (descriptor_ < 0) throw system_error("create", path, errno);
  if (size == 0) return;
  if (const int code = ::posix_fallocate(descriptor_, 0, static_cast<off_t>(size)); code != 0) {
    ::close(descriptor_);
    ::unlink(path.c_str());
    throw system_error(fmt::format("reserve {} bytes", size).c_str(), path, code);
  }
}

SizedFile::~SizedFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void SizedFile::write(std::size_t offset, std::span<const std::byte> bytes) {
  check(offset <= size_ && bytes.size() <= size_ - offset, "a write stays inside the file");
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) throw system_error("write", path_, errno);
    offset += static_cast<std::size_t>(count);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

void SizedFile::close() {
  const int descriptor = std::exchange(descriptor_, -1);
  if (::fsync(descriptor) != 0) {
    const int code = errno;
    ::close(descriptor);
    throw system_error("write", path_, code);
  }
  if (::close(descriptor) != 0) throw system_error("write", path_, errno);
}

AtomicFolder::AtomicFolder(const fs::path& target, bool replace) : target_(target) {
  // "out/" and "out" name the same folder.
  if (!target_.has_filename()) target_ = target_.parent_path();
  if (target_.empty()) throw Error("the output folder has no name");
  partial_ = target_.string() + ".partial";
  try {
    if (fs::exists(target_) && !replace && !(fs::is_directory(target_) && fs::is_empty(target_)))
      throw Error("output exists already").at(target_.string()).expected("a new or an empty folder");
    fs::remove_all(partial_);
    fs::create_directories(partial_);
  } catch (const fs::filesystem_error& problem) {
    throw Error("cannot make the folder: {}", problem.code().message()).at(partial_.string());
  }
}

AtomicFolder::~AtomicFolder() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(partial_, ignored);
}

void AtomicFolder::commit() {
  try {
    fs::remove_all(target_);
    fs::rename(partial_, target_);
  } catch (const fs::filesystem_error& problem) {
    throw Error("cannot rename the finished folder: {}", problem.code().message()).at(target_.string());
  }
  committed_ = true;
}

std::uintmax_t folder_bytes(const fs::path& folder) {
  std::uintmax_t total = 0;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file()) total += entry.file_size();
  return total;
}

}  // namespace bise
