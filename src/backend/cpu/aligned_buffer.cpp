#include "backend/cpu/aligned_buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace bise {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

}  // namespace

std::shared_ptr<std::byte> allocate_aligned(std::size_t bytes) {
  bytes = std::max<std::size_t>(bytes, 64);
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

}  // namespace bise
