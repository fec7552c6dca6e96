// A lock between processes, on a file that nothing else is done with: flock(2) on the files that
// huggingface_hub's filelock uses, so that both wait for each other. Released with the object or the process.
#pragma once

#include <filesystem>
#include <functional>

namespace bise {

class FileLock {
 public:
  // Makes the file and its folder where needed and waits for the lock. `waiting` is called some times a
  // second meanwhile; an exception it throws ends the wait. Throws Error when the file cannot be made.
  FileLock(const std::filesystem::path& path, const std::function<void()>& waiting);
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace bise
