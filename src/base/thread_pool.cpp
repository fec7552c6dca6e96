#include "base/thread_pool.h"

#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <exception>
#include <mutex>
#include <utility>

#include "base/check.h"

namespace bise {
namespace {

constexpr int kSpins = 2000;  // about 100 microseconds of _mm_pause

int usable_processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

}  // namespace

struct ThreadPool::Shared {
  // Each on its own cache line: workers poll `round` while others count down `running`.
  alignas(64) std::atomic<std::uint32_t> round{0};
  alignas(64) std::atomic<int> running{0};
  alignas(64) const std::function<void(int)>* body = nullptr;
  bool stopping = false;
  std::mutex failure_mutex;
  std::exception_ptr failure;

  void call(int thread) {
    try {
      (*body)(thread);
    } catch (...) {
      const std::scoped_lock lock(failure_mutex);
      if (!failure) failure = std::current_exception();
    }
  }
};

ThreadPool::ThreadPool(int threads) : shared_(std::make_unique<Shared>()) {
  check(threads >= 0, "a pool has no negative number of threads");
  if (threads == 0) threads = usable_processors();
  for (int thread = 1; thread < threads; ++thread) workers_.emplace_back([this, thread] { work(thread); });
}

ThreadPool::~ThreadPool() {
  shared_->stopping = true;
  shared_->round.fetch_add(1, std::memory_order_release);
  shared_->round.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::work(int thread) {
  std::uint32_t seen = 0;
  while (true) {
    for (int spin = 0; spin < kSpins && shared_->round.load(std::memory_order_acquire) == seen; ++spin)
      _mm_pause();
    shared_->round.wait(seen, std::memory_order_acquire);
    seen = shared_->round.load(std::memory_order_acquire);
    if (shared_->stopping) return;
    shared_->call(thread);
    if (shared_->running.fetch_sub(1, std::memory_order_acq_rel) == 1) shared_->running.notify_one();
  }
}

void ThreadPool::run(const std::function<void(int)>& body) {
  shared_->body = &body;
  if (!workers_.empty()) {
    shared_->running.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    shared_->round.fetch_add(1, std::memory_order_release);
    shared_->round.notify_all();
  }
  shared_->call(0);
  for (int spin = 0; shared_->running.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin < kSpins) {
      _mm_pause();
    } else if (const int left = shared_->running.load(std::memory_order_acquire); left != 0) {
      shared_->running.wait(left, std::memory_order_acquire);
    }
  }
  if (shared_->failure) std::rethrow_exception(std::exchange(shared_->failure, nullptr));
}

void ThreadPool::parallel_for(std::int64_t count, std::int64_t grain,
                              const std::function<void(std::int64_t, std::int64_t, int)>& body) {
  if (count <= 0) return;
  // About four chunks a thread even out an unequal load.
  const std::int64_t chunk = std::max<std::int64_t>({grain, 1, count / (4 * threads())});
  if (threads() == 1 || count <= chunk) return body(0, count, 0);
  std::atomic<std::int64_t> next{0};
  const auto take_chunks = [&](int thread) {
    for (std::int64_t begin = next.fetch_add(chunk); begin < count; begin = next.fetch_add(chunk))
      body(begin, std::min(begin + chunk, count), thread);
  };
  run(std::ref(take_chunks));  // by reference: nothing is allocated inside a step
}

}  // namespace bise
