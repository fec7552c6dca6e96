#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>

#include "backend/backend.h"

namespace bise {
namespace {

// The number behind "key:" in a /proc file, in kB there; 0 when it is absent.
std::int64_t proc_bytes(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string word; in >> word;) {
    std::int64_t kilobytes = 0;
    if (word == key + ":" && in >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

// A control group's limit; `otherwise` when it has none ("max", or no such file).
std::int64_t cgroup_limit(const char* file, std::int64_t otherwise) {
  std::ifstream in(file);
  std::int64_t bytes = 0;
  return in >> bytes ? bytes : otherwise;
}

}  // namespace

MemoryInfo host_memory() {
  MemoryInfo memory;
  memory.host = true;
  memory.total = proc_bytes("/proc/meminfo", "MemTotal");
  memory.free = proc_bytes("/proc/meminfo", "MemAvailable");
  memory.peak_used = proc_bytes("/proc/self/status", "VmHWM");
  // Of version 2 and version 1.
  const std::int64_t limit =
      std::min(cgroup_limit("/sys/fs/cgroup/memory.max", memory.total),
               cgroup_limit("/sys/fs/cgroup/memory/memory.limit_in_bytes", memory.total));
  if (limit < memory.total) {
    // Cached files count as used there, though they go when memory is wanted: take what the process itself
    // has.
    memory.total = limit;
    memory.free =
        std::min(memory.free, std::max<std::int64_t>(0, limit - proc_bytes("/proc/self/status", "VmRSS")));
  }
  return memory;
}

}  // namespace bise
