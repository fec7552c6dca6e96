#include "backend/cpu/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "backend/cpu/aligned_buffer.h"
#include "base/clock.h"

namespace bise {
namespace {

constexpr int kPasses = 5;
constexpr std::int64_t kLine = 8;  // 64-bit words of a cache line

// One word of every cache line: the lines are fetched whole, and the additions cost nothing beside that.
std::uint64_t touch_lines(const std::uint64_t* words, std::int64_t count) {
  std::uint64_t sums[4] = {};
  for (std::int64_t i = 0; i + 4 * kLine <= count; i += 4 * kLine)
    for (std::int64_t j = 0; j < 4; ++j) sums[j] += words[i + j * kLine];
  return sums[0] + sums[1] + sums[2] + sums[3];
}

}  // namespace

double measure_read_bandwidth(ThreadPool& pool, std::int64_t bytes) {
  const std::int64_t words = bytes / 8 / pool.threads() * pool.threads(), share = words / pool.threads();
  AlignedBuffer<std::uint64_t> buffer(words);
  std::atomic<std::uint64_t> sink{0};
  pool.run([&](int thread) {
    std::memset(buffer.data() + thread * share, 1, static_cast<std::size_t>(share) * 8);
  });
  double best = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const Stopwatch watch;
    pool.run([&](int thread) { sink += touch_lines(buffer.data() + thread * share, share); });
    best = std::max(best, static_cast<double>(words) * 8 / watch.seconds() / 1e9);
  }
  return best;
}

}  // namespace bise
