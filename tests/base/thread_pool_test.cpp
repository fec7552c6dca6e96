#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <vector>

namespace bise {
namespace {

TEST(ThreadPool, RunCallsEveryThreadOnce) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int round = 0; round < 1000; ++round) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(threads));
      pool.run([&](int thread) { ++calls[static_cast<std::size_t>(thread)]; });
      for (const auto& count : calls) ASSERT_EQ(count, 1);
    }
  }
}

TEST(ThreadPool, ParallelForCoversEveryIndexOnce) {
  ThreadPool pool(3);
  for (const std::int64_t count : {0, 1, 2, 7, 64, 1000}) {
    for (const std::int64_t grain : {1, 3, 5000}) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(count));
      pool.parallel_for(count, grain, [&](std::int64_t begin, std::int64_t end, int thread) {
        ASSERT_TRUE(thread >= 0 && thread < 3);
        for (std::int64_t i = begin; i < end; ++i) ++calls[static_cast<std::size_t>(i)];
      });
      for (const auto& calls_of_one : calls) ASSERT_EQ(calls_of_one, 1);
    }
  }
}

TEST(ThreadPool, AnExceptionReachesTheCallerAndThePoolGoesOn) {
  ThreadPool pool(3);
  for (int failing = 0; failing < 3; ++failing) {
    EXPECT_THROW(pool.run([&](int thread) {
      if (thread == failing) throw std::runtime_error("x");
    }),
                 std::runtime_error);
  }
  std::atomic<int> calls{0};
  pool.run([&](int) { ++calls; });
  EXPECT_EQ(calls, 3);
}

}  // namespace
}  // namespace bise
