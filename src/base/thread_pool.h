// The one way to use several threads for one computation. A pool is passed to what needs it; it is not
// global. run() and parallel_for() are called from one thread at a time and do not nest.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

namespace bise {

class ThreadPool {
 public:
  // `threads` includes the calling thread; 0 takes the number of processors this process may use.
  explicit ThreadPool(int threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(thread) once on every thread, thread = 0 .. threads()-1, and returns when all are done.
  // Thread 0 is the caller. The first exception thrown by a body is thrown again here.
  // Workers spin for about 100 microseconds after a run before they sleep: a decoder step is a few hundred
  // runs of some microseconds each.
  void run(const std::function<void(int thread)>& body);

  // Splits [0, count) into chunks of at least `grain` and calls body(begin, end, thread) for each; threads
  // take chunks as they become free, so the split must not influence the result.
  void parallel_for(std::int64_t count, std::int64_t grain,
                    const std::function<void(std::int64_t begin, std::int64_t end, int thread)>& body);

 private:
  struct Shared;
  void work(int thread);

  std::unique_ptr<Shared> shared_;
  std::vector<std::thread> workers_;
};

}  // namespace bise
