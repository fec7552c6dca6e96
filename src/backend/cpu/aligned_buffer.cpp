#include "backend/cpu/aligned_buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <mutex>
#include <new>
#include <utility>

namespace bise {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::shared_ptr<std::byte> map_pages(std::size_t bytes) {
  // Room to start at a multiple of a huge page, so that the kernel can use huge pages throughout.
  const std::size_t slack = bytes >= kHugePage ? kHugePage : 0;
  void* base = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) throw std::bad_alloc();
  const auto address = reinterpret_cast<std::uintptr_t>(base);
  auto* first = reinterpret_cast<std::byte*>(slack ? (address + slack - 1) / slack * slack : address);
  // Not the rest: a last huge page would be resident as a whole.
  if (slack) madvise(first, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return {first, [base, size = bytes + slack](std::byte*) { munmap(base, size); }};
}

// Memory that small buffers are cut from until it is full, so that they lie on huge pages too and waste none;
// it lives as long as any of them.
constexpr std::size_t kSharedBytes = 8 * kHugePage, kSmallBytes = 2 * kHugePage;

struct SharedMemory {
  std::mutex mutex;
  std::weak_ptr<std::byte> memory;
  std::size_t used = 0;
};

std::shared_ptr<std::byte> share_memory(std::size_t bytes) {
  static SharedMemory shared;
  const std::lock_guard lock(shared.mutex);
  std::shared_ptr<std::byte> memory = shared.memory.lock();
  if (!memory || shared.used + bytes > kSharedBytes) {
    memory = map_pages(kSharedBytes);
    shared.memory = memory;
    shared.used = 0;
  }
  std::byte* first = memory.get() + shared.used;
  shared.used += bytes;
  return {std::move(memory), first};
}

}  // namespace

std::shared_ptr<std::byte> allocate_aligned(std::size_t bytes) {
  bytes = (bytes + 63) / 64 * 64;
  return bytes < kSmallBytes ? share_memory(bytes) : map_pages(bytes);
}

}  // namespace bise
