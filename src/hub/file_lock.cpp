#include "hub/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/error.h"

namespace bise {
namespace {

// Whoever released the lock may have removed its file: a lock on a file without a name guards nothing.
bool is_still_named(int descriptor, const std::filesystem::path& path) {
  struct stat open {
  }, named{};
  return ::fstat(descriptor, &open) == 0 && ::stat(path.c_str(), &named) == 0 &&
         open.st_ino == named.st_ino && open.st_dev == named.st_dev;
}

}  // namespace

FileLock::FileLock(const std::filesystem::path& path, const std::function<void()>& waiting) {
  std::error_code ignored;
  std::filesystem::create_directories(path.parent_path(), ignored);
  while (true) {
    descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0664);
    if (descriptor_ < 0) throw Error("cannot make the lock file: {}", std::strerror(errno)).at(path.string());
    while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
      // A file system without locks: downloading twice at once is then the user's risk, as in
      // huggingface_hub.
      if (errno != EWOULDBLOCK && errno != EINTR) return;
      try {
        waiting();
      } catch (...) {
        ::close(descriptor_);
        throw;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    if (is_still_named(descriptor_, path)) return;
    ::close(descriptor_);
  }
}

FileLock::~FileLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace bise
